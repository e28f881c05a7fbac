"""Tests of orchestrator/doctor/."""
