"""One Parquet row per finished attempt."""
