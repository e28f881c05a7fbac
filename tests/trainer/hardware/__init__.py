"""Tests of trainer/hardware/."""
