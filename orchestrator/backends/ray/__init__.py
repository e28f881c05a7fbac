"""Ray: cluster, Tune controller, Train workers."""
