"""Tests of trainer/methods/."""
