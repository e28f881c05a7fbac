"""Tests of orchestrator/backends/ray/."""
