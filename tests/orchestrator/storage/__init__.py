"""Tests of orchestrator/storage/."""
