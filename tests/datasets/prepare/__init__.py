"""Tests of datasets/prepare/."""
