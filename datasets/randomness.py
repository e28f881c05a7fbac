"""Keyed random numbers: each sequence depends on its key and on nothing drawn before.

The key is (seed, stream, integers such as the global sample position). So a run may resume at any
step, and neither the number of loader workers nor that of ranks changes a number. Only the raw
64-bit words of Philox are used, which numpy promises never to change; the conversions are ours,
because those of numpy, torch and Python may change with their versions.
"""

import hashlib
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_BUFFER = 64  # words fetched at once; about one sample's worth


class Stream(IntEnum):
    """What a sequence of draws decides.

    The numbers are part of every result: never renumber, only add. Decisions whose number of
    draws varies (the rejection loop of CutMix) have a stream of their own.
    """

    LABELLED_ORDER = 1
    UNLABELLED_ORDER = 2
    MIX_ORDER = 3
    MIX_CHOICE = 4
    PASTE = 5
    LABELLED_CROP = 11
    UNLABELLED_CROP = 12
    MIX_CROP = 13
    OVERLAP_CROP = 14
    PASTE_CROP = 15
    STRONG_1 = 21
    STRONG_2 = 22
    MIX_STRONG_1 = 23
    MIX_STRONG_2 = 24
    LABELLED_STRONG = 25
    OVERLAP_STRONG = 26
    BOX_1 = 31
    BOX_2 = 32
    HOLE_1 = 33
    HOLE_2 = 34
    LABELLED_HOLE = 35
    DROPOUT = 41
    NUMBERS = 42
    INIT = 51
    SPLIT = 61
    DRAWING = 71
    RESAMPLING = 81


class KeyedRandom:
    """A sequence of random numbers with a key; equal keys give equal sequences."""

    __slots__ = ("_bits", "_next", "_words")

    def __init__(self, seed: int, stream: Stream, *place: int) -> None:
        """Start the sequence.

        Args:
            seed: of the run, any integer.
            stream: what the draws decide.
            place: integers that name the one decision, e.g. the global sample position.
        """
        self._bits = _philox(seed, stream, *place)
        self._words: list[int] = []
        self._next = 0

    def word(self) -> int:
        """The next 64 random bits."""
        if self._next == len(self._words):
            self._words = self._bits.random_raw(_BUFFER).tolist()
            self._next = 0
        self._next += 1
        return self._words[self._next - 1]

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next `count` words as an array, (count,)."""
        held = self._words[self._next : self._next + count]
        self._next += len(held)
        fresh = self._bits.random_raw(count - len(held)).astype(np.uint64)
        return np.concatenate([np.array(held, dtype=np.uint64), fresh])

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high), one word."""
        # The upper 53 bits: as many as a float64 holds, so the product is exact and below 1.
        return low + (high - low) * ((self.word() >> 11) * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high], both ends included; one word."""
        # A product and no rejection loop, so that the number of words drawn is always one; the bias
        # is below (high - low + 1) / 2^64.
        return low + ((self.word() * (high - low + 1)) >> 64)

    def bernoulli(self, probability: float) -> bool:
        """True with the given probability; one word."""
        return self.uniform(0.0, 1.0) < probability

    def permutation(self, count: int) -> list[int]:
        """The numbers 0 to count - 1 in random order; `count` words."""
        return [index for _, index in sorted((self.word(), index) for index in range(count))]

    def bits(self, count: int) -> NDArray[np.bool_]:
        """Fair coin flips, (count,)."""
        packed = self.words(-(-count // 64)).astype("<u8").view(np.uint8)
        return np.unpackbits(packed, count=count).astype(np.bool_)


def epoch_permutation(seed: int, stream: Stream, epoch: int, count: int) -> NDArray[np.int64]:
    """Order of a list of `count` entries in one pass over it, (count,)."""
    words = _philox(seed, stream, epoch).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)


def _philox(*key: int) -> np.random.Philox:
    """A generator keyed by whole numbers of any size."""
    # Philox takes a key of 128 bits; a hash of the numbers' text makes one of any numbers, on every
    # machine the same (Python's own hash() of a text differs between processes).
    text = ",".join(str(int(number)) for number in key).encode()
    digest = hashlib.blake2b(text, digest_size=16, person=b"ipixmatch-rng-v1").digest()
    return np.random.Philox(key=np.frombuffer(digest, dtype="<u8").astype(np.uint64))
