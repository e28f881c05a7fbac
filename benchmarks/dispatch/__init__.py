"""What it costs to bring a cell to a worker and its row back, without training; see `__main__`."""
