"""Tests of orchestrator/export/."""
