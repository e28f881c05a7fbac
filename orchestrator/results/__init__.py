"""Results as Parquet: one row per finished attempt, and the history of its epochs."""
