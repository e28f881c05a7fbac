"""Batches from any step to any step."""
