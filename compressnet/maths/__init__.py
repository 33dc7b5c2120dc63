"""Pure functions of integers and tensors; nothing here knows about layers."""
