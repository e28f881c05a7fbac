"""Tests of datasets/synthetic/."""
