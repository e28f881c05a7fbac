"""How long a grid will take: steps timed on this machine, and what follows for cells and tables."""
