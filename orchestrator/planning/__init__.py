"""The plan of a grid: the state of every cell, and how long it would take."""
