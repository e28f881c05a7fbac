"""The one error of Ray's side that callers act on; importing it does not import Ray."""


class ClusterUnreachable(RuntimeError):
    """No Ray answers at the given address, or the own one does not start."""
