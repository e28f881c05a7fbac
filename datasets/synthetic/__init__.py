"""The synthetic dataset: small scenes with masks, drawn from a seed."""
