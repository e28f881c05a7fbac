"""CPU time of the input pipeline, beside that of the UniMatch code; `__main__` is its door."""
