"""Tests of datasets/storage/."""
