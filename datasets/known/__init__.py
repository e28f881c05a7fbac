"""One file for each dataset with all that is known about it; `registry.KNOWN` lists them."""
