"""One training run, alone: network, methods, losses, determinism, checkpoints, evaluation."""
