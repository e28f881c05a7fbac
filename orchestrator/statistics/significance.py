"""Significance of paired differences: sign-flip test, Holm's correction, bootstrap interval.

The sign-flip test is exact. If two methods were the same, each pair's difference could as well have
the other sign. The p-value is the part of all 2^n sign patterns whose sum lies at least as far from
zero as the observed one. It assumes no normal distribution, and its smallest possible p-value tells
when n is too small for any answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log2, sqrt
from statistics import NormalDist, fmean

import numpy as np
from numpy.typing import NDArray

from datasets.randomness import KeyedRandom, Stream


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


CONFIDENCE = 0.95
LEAST_PAIRS = 5  # below, resamples show little but the least and the largest value

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
    draws = KeyedRandom(0, Stream.RESAMPLING, 2, total, len(groups))
    sums = np.zeros(_RESAMPLES)
    for group in groups:
        values = np.array(group, dtype=np.float64)
        # 32 random bits times n, shifted back, are an index below n, biased by less than n / 2^32.
        words = draws.words(_RESAMPLES * len(values)) >> np.uint64(32)
        chosen = (words * np.uint64(len(values))) >> np.uint64(32)
        sums += values[chosen.astype(np.int64)].reshape(_RESAMPLES, len(values)).sum(1)
    low, high = np.quantile(sums / total, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def interval_of_pairs(groups: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """The interval of paired differences, where there are enough to speak of one.

    The percentile interval of n values is too narrow, since it takes their spread for that of all
    seeds: of two values it is the two values, which hold the true mean every other time.

    Args:
        groups: the differences of each split.

    Returns:
        Its ends; None below `LEAST_PAIRS` pairs in all, or where a split has a single one.
    """
    return bootstrap_interval(groups) if sum(map(len, groups)) >= LEAST_PAIRS else None


def _limit(groups: Sequence[Sequence[float]], confidence: float) -> tuple[float, float]:
    """What the percentiles tend to with many values: resampled means become normal."""
    total = sum(map(len, groups))
    mean = fmean(value for group in groups for value in group)
    spread = sqrt(sum(float(np.var(group)) * len(group) for group in groups)) / total
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * spread
    return mean - reach, mean + reach


ALPHA = 0.05

_EXACT_PAIRS = 40  # two halves of 2^20 sums
_FLIPS = 9_999  # beyond, drawn patterns; with the observed one p is a multiple of 1/10,000


@dataclass(frozen=True)
class SignFlip:
    """The answer of the test.

    Attributes:
        p: two-sided.
        smallest_p: that this number of pairs can give at all.
        is_exact: all sign patterns were counted, not a sample of them.
    """

    p: float
    smallest_p: float
    is_exact: bool = True


def sign_flip(differences: Sequence[float]) -> SignFlip:
    """Test whether paired differences have mean zero.

    Args:
        differences: one per pair; a zero says nothing about a sign and does not count as a pair.
    """
    values = np.array([value for value in differences if value != 0.0], dtype=np.float64)
    smallest = smallest_p(len(values))
    observed = abs(float(values.sum()))
    # Sums that are equal but for rounding count as equal: 0.3 - 0.1 against 0.2.
    reached = observed - 1e-9 * float(np.abs(values).sum())
    if len(values) == 0 or reached <= 0.0:
        return SignFlip(1.0, smallest)
    if len(values) <= _EXACT_PAIRS:
        # Flipping every sign mirrors a sum at zero, so both tails are equal.
        return SignFlip(2.0 * _part_above(values, reached), smallest)
    return SignFlip(_sampled(values, reached), smallest, is_exact=False)


def smallest_p(pairs: int) -> float:
    """Of any outcome of so many pairs: all differences of one sign, either one."""
    return min(1.0, 2.0 ** (1 - pairs))


def pairs_needed(rivals: int = 1, alpha: float = ALPHA) -> int:
    """The fewest pairs that can be significant against the strictest step of Holm.

    Args:
        rivals: number of tests in the family.
        alpha: level of the family.
    """
    return ceil(1 + log2(rivals / alpha))


def _part_above(values: NDArray[np.float64], reached: float) -> float:
    """Part of the 2^n sign patterns with a sum of at least `reached`.

    The 2^(n/2) sums of each half of the values are listed and combined by binary search, which
    needs far less time and memory than all 2^n sums.
    """
    half = len(values) // 2
    left, right = _sums(values[:half]), np.sort(_sums(values[half:]))
    below = np.searchsorted(right, reached - left, side="left")
    return float((len(right) - below).sum()) / (len(left) * len(right))


def _sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of every sign pattern, (2^n,) of (n,), or (m, 2^n) of (n, m)."""
    sums = np.zeros((*values.shape[1:], 1))
    for value in values:
        sums = np.concatenate([sums + value[..., None], sums - value[..., None]], axis=-1)
    return sums


def _sampled(values: NDArray[np.float64], reached: float) -> float:
    """The p-value from drawn sign patterns and the observed one."""
    sums = np.zeros(_FLIPS)
    whole = len(values) // 8 * 8
    # Eight signs are a byte of the draws, and the sums of eight values a table of 256.
    tables = [*_sums(values[:whole].reshape(-1, 8).T), _sums(values[whole:])]
    for table, patterns in zip(tables, _patterns(len(values)), strict=False):
        sums += table[patterns & np.uint8(len(table) - 1)]  # a power of two
    return (1 + int((np.abs(sums) >= reached).sum())) / (_FLIPS + 1)


@lru_cache(maxsize=8)  # the comparisons of a table mostly have equally many pairs
def _patterns(pairs: int) -> list[NDArray[np.uint8]]:
    """Drawn signs of so many pairs, a byte for each eight."""
    draws = KeyedRandom(0, Stream.RESAMPLING, 1, pairs)
    words = [draws.words(-(-_FLIPS // 8)) for _ in range(0, pairs, 8)]
    return [word.astype("<u8").view(np.uint8)[:_FLIPS] for word in words]
