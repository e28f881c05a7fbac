"""Which images have labels: lists that are published, imported or generated."""
