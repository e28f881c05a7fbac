"""Which image stands at a position of the endless sequence."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.randomness import Stream, epoch_permutation


class Order:
    """Which image stands at a position: the list, shuffled anew in every pass, without end."""

    def __init__(self, ids: Sequence[str], *, seed: int, stream: Stream) -> None:
        """Keep the list.

        Args:
            ids: the list, at least one.
            seed: of the run.
            stream: one of the ORDER streams.
        """
        self._ids = ids
        self._seed = seed
        self._stream = stream
        self._passes: dict[int, NDArray[np.int64]] = {}

    def at(self, position: int) -> str:
        """The id at a global position."""
        epoch, place = divmod(position, len(self._ids))
        if epoch not in self._passes:
            if len(self._passes) > 8:  # a cache: one batch touches few passes
                self._passes.clear()
            order = epoch_permutation(self._seed, self._stream, epoch, len(self._ids))
            self._passes[epoch] = order
        return self._ids[int(self._passes[epoch][place])]
