"""Datasets packed into Parquet shards."""
