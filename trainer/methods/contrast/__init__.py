"""Contrastive losses of features, and the banks they take their negatives from."""
