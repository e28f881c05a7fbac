"""L_o of Eq. 6, one file per method; each hands out the pairs for the inter-pixel loss."""
