"""What to run and what to print: Hydra YAML, cells, grids and the paper's tables."""
