"""Data sets by name, cut into train, val (the part to choose by) and test."""
