"""Tests of datasets/loading/."""
