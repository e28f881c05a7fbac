"""A real Ray of several machines on this one, and what tests need of it."""
