"""Tests of orchestrator/backends/slurm/."""
