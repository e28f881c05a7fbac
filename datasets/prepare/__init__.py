"""Bringing data into place and proving it."""
