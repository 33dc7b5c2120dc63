"""Numbers as bytes: quantisers turn them into symbols, entropy coders write these in as many bits as they deserve."""
