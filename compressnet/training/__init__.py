"""Training, dense or compressed: one visible loop and what it needs."""
