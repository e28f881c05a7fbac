"""Slurm: jobs of cells, submitted, watched, judged."""
