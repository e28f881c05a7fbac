"""Mean IoU against a count in plain Python and against torchmetrics."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassConfusionMatrix

from trainer.evaluate import ConfusionMatrix, iou_percent, mean_iou_percent


def drawn(seed: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randint(0, classes, (2, 9, 7), generator=generator)
    truth = torch.randint(0, classes - 1, (2, 9, 7), generator=generator)
    truth[torch.rand(2, 9, 7, generator=generator) < 0.2] = 255
    return predicted, truth.to(torch.uint8)


@given(seed=st.integers(0, 1000))
def test_iou_equals_a_count_of_sets_of_pixels(seed: int) -> None:
    predicted, truth = drawn(seed)
    matrix = ConfusionMatrix(5)
    matrix.update(predicted, truth)

    for cls, value in enumerate(matrix.compute().tolist()):
        pixels = [
            (p == cls, t == cls)
            for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True)
            if t != 255
        ]
        union = sum(p or t for p, t in pixels)
        expected = 100.0 * sum(p and t for p, t in pixels) / union if union else math.nan
        assert value == expected or (math.isnan(value) and math.isnan(expected))


@pytest.mark.parametrize("classes", [5, 127, 128, 255])
def test_counts_equal_those_of_torchmetrics(classes: int) -> None:
    predicted, truth = drawn(3, classes)
    ours = ConfusionMatrix(classes)
    theirs = MulticlassConfusionMatrix(classes, ignore_index=255)

    ours.update(predicted, truth)
    theirs.update(predicted, truth.to(torch.int64))

    assert (ours.counts == theirs.compute()).all()


def test_batches_add_up_to_the_whole() -> None:
    predicted, truth = drawn(4)
    whole, parts = ConfusionMatrix(5), ConfusionMatrix(5)
    whole.update(predicted, truth)

    for p, t in zip(predicted, truth, strict=True):
        parts.update(p, t)

    assert (whole.counts == parts.counts).all()


def test_the_mean_counts_an_absent_class_as_zero() -> None:
    counts = torch.tensor([[4, 0, 0], [0, 2, 0], [0, 0, 0]])

    per_class = iou_percent(counts)

    assert per_class[:2].tolist() == [100.0, 100.0]
    assert math.isnan(per_class[2].item())
    assert mean_iou_percent(per_class) == 200.0 / 3
