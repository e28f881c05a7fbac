"""Tests of orchestrator/planning/."""
