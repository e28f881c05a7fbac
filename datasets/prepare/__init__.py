"""Copying published data into a tree, verifying it, and packing it into shards."""
