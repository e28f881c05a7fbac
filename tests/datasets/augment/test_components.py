"""Components found by sorting and maxima, against those of scipy."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from datasets.augment.components import component_boxes, component_labels

seeds = st.integers(0, 2**40)


def outlines(seed: int, side: int, classes: int) -> Tensor:
    """Where noise of a quarter of the resolution has one of some classes, bool (3, S, S)."""
    noise = torch.randn(3, classes, 9, 9, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(noise, (side, side), mode="nearest").argmax(1) == 0


def boxes_of(seen: Tensor, larger_than: float) -> list[Tensor]:
    """The boxes of all large components, by scipy."""
    numbers, count = ndimage.label(seen.numpy(), np.ones((3, 3)))
    boxes = []
    for number, where in enumerate(ndimage.find_objects(numbers), start=1):
        if (numbers == number).sum() > larger_than:
            box = torch.zeros_like(seen)
            box[where] = True
            boxes.append(box)
    assert count >= len(boxes)
    return boxes


@given(seeds, st.integers(9, 40), st.integers(2, 4))
def test_labels_are_equal_in_one_component_and_differ_between_two(
    seed: int, side: int, classes: int
) -> None:
    maps = outlines(seed, side, classes)

    labels = component_labels(maps)

    for mine, seen in zip(labels, maps, strict=True):
        numbers, count = ndimage.label(seen.numpy(), np.ones((3, 3)))
        pairs = set(zip(mine.flatten().tolist(), numbers.flatten().tolist(), strict=True))
        assert len(pairs) == count + bool((~seen).any())
        assert (mine == 0).equal(~seen)


@given(seeds, st.integers(0, 40))
def test_a_box_is_that_of_a_component_which_is_large_enough(seed: int, larger_than: int) -> None:
    maps = outlines(seed, 18, 3)
    keys = torch.rand(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    boxes, found = component_boxes(maps, larger_than=larger_than, keys=keys)

    for box, is_found, seen in zip(boxes, found, maps, strict=True):
        possible = boxes_of(seen, larger_than)
        assert bool(is_found) is bool(possible)
        assert any(box.equal(other) for other in possible) or not (possible or box.any())


def test_each_of_three_components_is_chosen_about_equally_often() -> None:
    seen = torch.zeros(6, 6, dtype=torch.bool)
    seen[0, 0] = seen[0, 3] = seen[3:5, 1:3] = seen[5, 5] = True
    keys = torch.rand(600, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    boxes, found = component_boxes(seen.expand(600, -1, -1), larger_than=0, keys=keys)

    counts = Counter(tuple(box.flatten().nonzero().flatten().tolist()) for box in boxes)
    assert found.all()
    assert sorted(counts) == [(0,), (3,), (19, 20, 25, 26), (35,)]
    assert min(counts.values()) == pytest.approx(150, abs=40)


def test_a_winding_outline_is_one_component_up_to_so_many_turns() -> None:
    comb = torch.ones(1, 24, 24, dtype=torch.bool)
    comb[0, 1::4, :-1] = comb[0, 3::4, 1:] = False  # one path that turns at the end of every row

    assert len(component_labels(comb).unique()) == 2
