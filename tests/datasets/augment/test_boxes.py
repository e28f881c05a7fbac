"""Maps of CutMix boxes and the noise in holes, against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets.augment.boxes import box_maps, edges_of, fill_holes
from datasets.augment.host import Box, BoxRule, draw_boxes
from tests.support.strategies import draws_of

CROP = 32


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 12), st.integers(0, 12))
def test_a_box_map_counts_the_pixels_of_its_box(
    left: int, top: int, width: int, height: int
) -> None:
    inside = box_maps(edges_of([[(Box(left, top, width, height),)]])[0], CROP)[0]

    assert inside.sum() == width * height
    assert inside.any(dim=0).sum() == (width if height else 0)
    assert not width or not height or inside[top, left]


@pytest.mark.parametrize("rule", list(BoxRule))
def test_boxes_cancel_where_they_overlap(rule: BoxRule) -> None:
    boxes = [draw_boxes(draws_of(seed), CROP, rule) for seed in range(20)]
    expected = np.zeros((20, CROP, CROP), bool)
    for index, of_image in enumerate(boxes):
        for box in of_image:
            for row in range(box.top, box.top + box.height):
                for column in range(box.left, box.left + box.width):
                    expected[index, row, column] ^= True

    assert np.array_equal(box_maps(edges_of([boxes])[0], CROP).numpy(), expected)


@pytest.mark.parametrize(
    ("rule", "count", "low", "high"), [("half", 1, 0.5, 0.5), ("three", 3, 0.25, 0.5)]
)
def test_boxes_of_a_share_of_the_crop_lie_inside(
    rule: str, count: int, low: float, high: float
) -> None:
    drawn = [draw_boxes(draws_of(seed), 200, BoxRule(rule)) for seed in range(500)]
    shares = [box.width * box.height * count / 200**2 for boxes in drawn for box in boxes]

    assert {len(boxes) for boxes in drawn} == {count}
    assert low - 0.01 < min(shares) <= max(shares) < high + 0.01
    for box in (box for boxes in drawn for box in boxes):
        assert box.left >= 0 <= box.top
        assert box.left + box.width <= 200 >= box.top + box.height


def test_holes_are_filled_with_even_noise_and_nothing_else_changes() -> None:
    images = torch.zeros(3, 3, CROP, CROP, dtype=torch.uint8)
    holes = torch.zeros(3, CROP, CROP, dtype=torch.bool)
    holes[:, 2:30] = True

    noise = fill_holes(images, holes, torch.tensor([5, 6, 5]))

    inside = noise[:2, :, 2:30].flatten().numpy()
    assert np.bincount(inside, minlength=256).min() > 0
    assert inside.mean() == pytest.approx(127.5, abs=3)
    assert np.corrcoef(inside[:-1], inside[1:])[0, 1] == pytest.approx(0.0, abs=0.03)
    assert not noise[:, :, :2].any()
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])


def test_the_noise_is_splitmix64() -> None:
    mask, key = 2**64 - 1, 12345
    word = (7 * 0x9E3779B97F4A7C15 + key) & mask  # of the seventh number of the image
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask

    noise = fill_holes(
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        torch.ones(1, 4, 4, dtype=torch.bool),
        torch.tensor([key]),
    )

    assert noise.flatten()[6] == word >> 56
