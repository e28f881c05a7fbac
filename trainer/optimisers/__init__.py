"""Optimisers: what moves the weights of a network by its gradients, and what they remember."""
