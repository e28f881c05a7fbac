"""Tests of slurm/."""
