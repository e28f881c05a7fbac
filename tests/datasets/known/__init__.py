"""Tests of datasets/known/."""
