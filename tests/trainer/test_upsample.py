"""Enlarging against torch's own interpolation."""

import pytest
import torch
from torch.nn import functional

from trainer.network.deeplab import upsample

SIZES = [((21, 21), (81, 81)), ((3, 5), (7, 16)), ((1, 4), (6, 9)), ((81, 81), (321, 321))]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_bilinear_is_align_corners_bilinear(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    x = torch.randn(2, 3, *source, dtype=torch.float64, requires_grad=True)
    expected = functional.interpolate(x, size=target, mode="bilinear", align_corners=True)
    weight = torch.randn_like(expected)
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), x)

    found = upsample(x, target, "bilinear")
    (found_grad,) = torch.autograd.grad((found * weight).sum(), x)

    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(found_grad, expected_grad, atol=1e-10, rtol=0)


def test_nearest_is_torch_nearest() -> None:
    x = torch.randn(1, 2, 21, 21)

    expected = functional.interpolate(x, size=(81, 81), mode="nearest")

    assert torch.equal(upsample(x, (81, 81), "nearest"), expected)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_single_pixel_is_copied(mode: str) -> None:
    x = torch.randn(2, 3, 1, 1)

    assert torch.equal(upsample(x, (4, 5), mode), x.expand(2, 3, 4, 5))  # type: ignore[arg-type]


def test_the_same_size_is_left_alone() -> None:
    x = torch.randn(1, 1, 4, 4)

    assert upsample(x, (4, 4), "bilinear") is x
