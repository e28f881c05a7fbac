"""Holm's correction for several rivals at once."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values as if each were the only one, in the order given.

    The smallest is multiplied by the number of tests, the next by one less, and so on; none is
    below one before it (Holm, 1979). Valid however the tests depend on each other.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted
