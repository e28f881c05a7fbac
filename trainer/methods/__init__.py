"""L_o of Eq. 6: one file per method, none knows the inter-pixel loss."""
