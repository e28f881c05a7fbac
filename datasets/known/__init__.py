"""The datasets, one file each with all facts about it; `registry.KNOWN` lists them."""
