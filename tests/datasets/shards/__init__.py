"""Tests of datasets/shards/."""
