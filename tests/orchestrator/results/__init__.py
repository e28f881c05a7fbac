"""Tests of orchestrator/results/."""
