"""Tests of orchestrator/backends/."""
