"""The report of a grid: one HTML file with tables, curves, pictures, costs and provenance."""
