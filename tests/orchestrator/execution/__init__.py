"""Tests of orchestrator/execution/."""
