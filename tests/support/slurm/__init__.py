"""A real Slurm in a box, and what tests need of it."""
