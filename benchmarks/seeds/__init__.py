"""How often seeds until settled decide falsely, and how many runs they save.

Door: `python -m benchmarks.seeds`.
"""
