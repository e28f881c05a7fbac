"""Tests of datasets/splits/."""
