"""Tests of datasets/augment/."""
