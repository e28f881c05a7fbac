"""Tests of datasets/images/."""
