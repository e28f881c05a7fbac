"""What would run: the state of every cell."""
