"""The back end on Slurm: submits cells as jobs, watches them, and classifies their ends."""
