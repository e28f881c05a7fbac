"""One attempt at one cell."""
