"""Batches of labelled and unlabelled images, from any step to any step."""
