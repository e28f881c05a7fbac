"""Bootstrap interval of a mean over seeds and splits."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist, fmean

import numpy as np

from datasets.randomness import Draws, Stream

CONFIDENCE = 0.95

_RESAMPLES = 10_000
_MANY = 200  # seeds on every split, from where the resampled means are normal for any reader


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
    if min(map(len, groups)) >= _MANY:
        return _limit(groups, confidence)
    total = sum(map(len, groups))
    draws = Draws(0, Stream.RESAMPLING, 2, total, len(groups))
    sums = np.zeros(_RESAMPLES)
    for group in groups:
        values = np.array(group, dtype=np.float64)
        words = draws.words(_RESAMPLES * len(values)) >> np.uint64(32)
        chosen = (words * np.uint64(len(values))) >> np.uint64(32)
        sums += values[chosen.astype(np.int64)].reshape(_RESAMPLES, len(values)).sum(1)
    low, high = np.quantile(sums / total, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _limit(groups: Sequence[Sequence[float]], confidence: float) -> tuple[float, float]:
    """What the percentiles tend to with many values: resampled means become normal."""
    total = sum(map(len, groups))
    mean = fmean(value for group in groups for value in group)
    spread = sqrt(sum(float(np.var(group)) * len(group) for group in groups)) / total
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * spread
    return mean - reach, mean + reach
