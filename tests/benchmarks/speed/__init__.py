"""How fast compressed layers and files are, beside what their users would have otherwise: one group a file."""
