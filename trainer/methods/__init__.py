"""The methods that compute L_o of Eq. 6, one file each, and give the inter-pixel loss its pairs."""
