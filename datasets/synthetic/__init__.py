"""The synthetic dataset: scenes drawn by this program."""
