"""Whole objects under names, in a folder or a bucket."""
