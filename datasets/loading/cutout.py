"""Cutout: holes with noise in strong views (ST++, Yang et al. 2022).

Legend: B images of this rank, S x S pixels. Position = step * batch + slot, over all ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.augment.boxes import box_maps, edges_of, fill_holes
from datasets.augment.host import Box, draw_box
from datasets.randomness import KeyedRandom, Stream
from datasets.spec import IGNORED


def draw_hole(seed: int, stream: Stream, position: int, crop: int) -> tuple[Box, int]:
    """The hole in the strong view at a position, and the key of its noise.

    The key has 63 bits, as int64 has a sign.
    """
    draws = KeyedRandom(seed, stream, position)
    key = draws.word() >> 1
    return draw_box(draws, crop, redraws_area=True), key


@dataclass(frozen=True)
class LabelledCutout:
    """Holes in the strong views of those labelled images whose mask a network predicted.

    Attributes:
        edges: left, top, right, bottom, int64 (B, 1, 4); no width where there is no hole.
        keys: of the noise in them, int64 (B,).
        is_predicted: whether a network predicted the mask, bool (B,).
    """

    edges: Tensor
    keys: Tensor
    is_predicted: Tensor

    @classmethod
    def drawn(
        cls, seed: int, positions: Sequence[int], is_predicted: Sequence[bool], crop: int
    ) -> "LabelledCutout":
        """The holes at some positions; images with true masks have none.

        Args:
            seed: of the run.
            positions: global ones of this rank's images.
            is_predicted: of each image, whether a network predicted its mask.
            crop: S.
        """
        boxes: list[tuple[Box, ...]] = []
        keys = []
        for position, cuts in zip(positions, is_predicted, strict=True):
            box, key = draw_hole(seed, Stream.LABELLED_HOLE, position, crop)
            boxes.append((box if cuts else Box(),))
            keys.append(key)
        return cls(edges_of([boxes])[0], torch.tensor(keys), torch.tensor(is_predicted))

    def cut(self, strong: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Noise in the holes of strong views (B, 3, S, S), and 255 there in masks (B, S, S)."""
        holes = box_maps(self.edges, strong.shape[-1])
        return fill_holes(strong, holes, self.keys), masks.masked_fill(holes, IGNORED)
