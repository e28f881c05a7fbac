"""Tests of orchestrator/printers/."""
