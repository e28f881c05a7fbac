"""Tests of orchestrator/tables/."""
