"""Tests of orchestrator/statistics/."""
