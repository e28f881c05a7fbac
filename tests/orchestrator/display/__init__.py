"""Tests of orchestrator/display/."""
