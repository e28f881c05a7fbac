"""What this machine offers a run: GPUs and shared memory. Facts are collected here, then judged."""
