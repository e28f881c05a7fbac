"""What a card does with the training step, in one table: `python -m benchmarks.gpu`."""
