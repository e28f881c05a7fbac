"""Bootstrap interval of a mean over seeds and splits."""

from collections.abc import Sequence

import numpy as np

from datasets.randomness import Draws, Stream

CONFIDENCE = 0.95

_RESAMPLES = 10_000
_FEWEST = 1_000  # of very many pairs, whose interval needs no more
_WORDS = 4_000_000


def bootstrap_interval(
    groups: Sequence[Sequence[float]], confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Percentile interval of the mean of all values.

    Seeds are what was drawn at random; splits are those of the paper. So each split's values are
    resampled among themselves, and a split with one seed leaves nothing to resample.

    Args:
        groups: the values of each split.
        confidence: part of the resampled means inside.

    Returns:
        Lower and upper end, the same on every machine; None where a split has fewer than two.
    """
    if not groups or min(map(len, groups)) < 2:
        return None
    total = sum(map(len, groups))
    count = max(_FEWEST, min(_RESAMPLES, _WORDS // total))
    draws = Draws(0, Stream.RESAMPLING, 2, total, len(groups))
    sums = np.zeros(count)
    for group in groups:
        values = np.array(group, dtype=np.float64)
        words = draws.words(count * len(values)) >> np.uint64(32)
        chosen = (words * np.uint64(len(values))) >> np.uint64(32)
        sums += values[chosen.astype(np.int64)].reshape(count, len(values)).sum(1)
    low, high = np.quantile(sums / total, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
