"""Boxes of CutMix around connected components, on the device of the maps, without waiting for it.

Legend: B maps, S x S pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from datasets.augment.boxes import uniform_noise

# Each joins what lies in one row, one column or diagonally apart. Outlines of noise at a quarter of
# the resolution, 321 and 801 pixels wide, took 4 to 12 rounds.
ROUNDS = 16


def component_boxes(maps: Tensor, *, larger_than: float, keys: Tensor) -> tuple[Tensor, Tensor]:
    """The bounding box of a large connected component of each map; each is as likely as the others.

    Pixels that touch in a corner are connected. A component so winding that `ROUNDS` do not join it
    counts as several.

    Args:
        maps: bool (B, S, S).
        larger_than: pixels; smaller components, and those of exactly so many, are passed over.
        keys: in [0, 1), one of each map, (B,): choose among its components.

    Returns:
        True inside the box, bool (B, S, S); and whether there is one, bool (B,).
    """
    labels = component_labels(maps)
    flat = labels.flatten(1)
    ordered = flat.sort(1).values
    last, first = (torch.searchsorted(ordered, flat, right=right) for right in (True, False))
    # The pixel whose number is the label stands for the component.
    place = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    chosen_from = (flat == place) & (last - first > larger_than)
    order = uniform_noise(keys, torch.Size((*labels.shape[:1], 1, *labels.shape[1:])))
    winner = torch.where(chosen_from, order.flatten(1), -1.0).argmax(1, keepdim=True)
    exists = chosen_from.any(1)
    inside = (labels == (winner + 1)[..., None]) & exists[:, None, None]
    return _between(inside.any(2))[:, :, None] & _between(inside.any(1))[:, None, :], exists


def component_labels(maps: Tensor) -> Tensor:
    """A number of each component, that of its last pixel counted from 1; 0 outside; int64."""
    places = torch.arange(1, maps[0].numel() + 1, device=maps.device).view(maps.shape[1:])
    labels = torch.where(maps, places, 0)
    rows, columns = _Runs.of(maps), _Runs.of(maps.mT)
    for _ in range(ROUNDS):
        labels = columns.largest(rows.largest(labels).mT).mT
        wide = functional.pad(labels, (1, 1, 1, 1))
        tall = wide[:, :-2].maximum(wide[:, 1:-1]).maximum(wide[:, 2:])
        near = tall[..., :-2].maximum(tall[..., 1:-1]).maximum(tall[..., 2:])
        labels = torch.where(maps, near, 0)
    return labels


@dataclass(frozen=True)
class _Runs:
    """Unbroken runs of True along the last axis; a False is a run of its own.

    Attributes:
        start: a number that grows from run to run, int64.
        end: place of the last pixel of the run, int64.
    """

    start: Tensor
    end: Tensor

    @classmethod
    def of(cls, maps: Tensor) -> "_Runs":
        places = torch.arange(maps.shape[-1], device=maps.device)
        before = torch.where(maps, -1, places).cummax(-1).values
        behind = torch.where(maps.flip(-1), -1, places).cummax(-1).values.flip(-1)
        after = maps.shape[-1] - 1 - behind  # of a True the next False
        return cls(before + 1, torch.where(maps, after - 1, places))

    def largest(self, labels: Tensor) -> Tensor:
        """The largest label of the run of each pixel."""
        # With the number of the run before it, a label of a later run is larger than all earlier.
        base = self.start * (labels.shape[-1] * labels.shape[-2] + 1)
        return (labels + base).cummax(-1).values.gather(-1, self.end) - base


def _between(seen: Tensor) -> Tensor:
    """From the first to the last True of each row, bool (B, S)."""
    places = torch.arange(seen.shape[1], device=seen.device)
    first = torch.where(seen, places, seen.shape[1]).amin(1, keepdim=True)
    last = torch.where(seen, places, -1).amax(1, keepdim=True)
    return (places >= first) & (places <= last)
