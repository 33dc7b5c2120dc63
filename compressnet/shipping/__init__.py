"""What is shipped: what is asked for, the numbers it has then, and the ways to write them."""
