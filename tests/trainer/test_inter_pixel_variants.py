"""Every alternative reading, and that the default reading is the public function."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.trainer.test_inter_pixel import STUDENT, TEACHER, random_logits
from trainer.config.schema import (
    Classes,
    CorrelateOn,
    CutMixPairs,
    Direction,
    Distance,
    DivideBy,
    LossConfig,
    NormOver,
    Resolution,
    Scope,
    ViewReduce,
)
from trainer.distributed import Ranks
from trainer.inter_pixel import inter_pixel_loss
from trainer.methods.interface import Pair
from trainer.objective import InterPixelTerm, image_losses

ALONE = Ranks(0, 1, torch.device("cpu"))
KL = LossConfig(distance=Distance.kl)


def oracle(loss: LossConfig) -> float:
    ones = torch.ones(1, 3, dtype=torch.bool)
    return float(image_losses(STUDENT.flatten(2), TEACHER.flatten(2), ones, loss)[0].item())


def pair(seed: int = 1, view: str = "s1", box: Tensor | None = None) -> Pair:
    student, teacher = random_logits(seed, (2, 3, 8, 8))
    return Pair(view, teacher, student, torch.ones(2, 8, 8, dtype=torch.bool), box)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 0.061223648204),
        ({"t2_scale": True}, 0.979578371),
        ({"log_norm": False}, 0.067261),
        ({"direction": Direction.reverse}, 0.067545227),
        ({"threshold": 0.9, "norm_over": NormOver.all}, 0.118567295),
        ({"distance": Distance.cr}, 0.458272),
        ({"distance": Distance.cr, "log_norm": False}, 0.503463),
        ({"threshold": 0.99}, 0.0),
        ({"min_pixels": 4}, 0.0),
    ],
)
def test_the_oracle_of_each_reading(change: dict[str, object], expected: float) -> None:
    assert oracle(replace(KL, **change)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("distance", [Distance.kl, Distance.cr])
def test_the_default_reading_is_the_public_function(distance: Distance) -> None:
    student, teacher = random_logits(2)
    valid = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0)) > 0.2

    losses, _ = image_losses(
        student.flatten(2), teacher.flatten(2), valid.flatten(1), replace(KL, distance=distance)
    )

    public = inter_pixel_loss(student, teacher, valid=valid, distance=distance.value)
    assert losses.mean().item() == pytest.approx(public.item(), abs=1e-12)


def test_js_is_symmetric_and_below_both_orders() -> None:
    student, teacher = (x.flatten(2) for x in random_logits(4))
    ones = torch.ones(2, 20, dtype=torch.bool)
    sure = replace(KL, threshold=0.0, direction=Direction.js)

    there = image_losses(student, teacher, ones, sure)[0]
    back = image_losses(teacher, student, ones, sure)[0]

    torch.testing.assert_close(there, back)
    assert (there < image_losses(student, teacher, ones, replace(KL, threshold=0.0))[0]).all()


def test_js_has_a_finite_gradient() -> None:
    student, teacher = (x.flatten(2) for x in random_logits(4))
    student.requires_grad_(True)

    losses, _ = image_losses(
        student, teacher, torch.ones(2, 20, dtype=torch.bool), replace(KL, direction=Direction.js)
    )
    losses.sum().backward()

    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_present_classes_leave_out_channels_that_win_nowhere() -> None:
    student, teacher = (x.flatten(2) for x in random_logits(6))
    teacher[:, 2] -= 100.0  # class 2 wins nowhere
    ones = torch.ones(2, 20, dtype=torch.bool)
    sure = replace(KL, threshold=0.0)

    present = image_losses(student, teacher, ones, replace(sure, classes=Classes.present))[0]

    two = image_losses(student[:, :2], teacher[:, :2], ones, sure)[0]
    torch.testing.assert_close(present, two)


def test_cr_on_logits_correlates_the_logits() -> None:
    loss = replace(KL, distance=Distance.cr, cr_on=CorrelateOn.logits, log_norm=False)
    rho = torch.corrcoef(torch.stack([TEACHER[0, 1, 0], STUDENT[0, 1, 0]]))[0, 1]

    assert oracle(loss) == pytest.approx((1.0 + 1.0 - rho.item()) / 2, abs=1e-9)


def test_two_views_are_averaged_or_summed() -> None:
    pairs = [pair(1, "s1"), pair(2, "s2")]
    mean = InterPixelTerm(KL, 2, ALONE)(pairs)

    total = InterPixelTerm(replace(KL, view_reduce=ViewReduce.sum), 2, ALONE)(pairs)

    assert total.item() == pytest.approx(2 * mean.item())


def test_outside_only_takes_the_box_out_of_omega() -> None:
    box = torch.zeros(2, 8, 8, dtype=torch.bool)
    box[:, :4] = True
    outside = InterPixelTerm(replace(KL, cutmix=CutMixPairs.outside_only), 2, ALONE)
    half = pair()
    lower = Pair("s1", half.teacher[..., 4:, :], half.student[..., 4:, :], half.valid[:, 4:])

    assert outside([pair(box=box)]).item() == pytest.approx(
        InterPixelTerm(KL, 2, ALONE)([lower]).item()
    )


def test_two_regions_is_the_mean_of_inside_and_outside() -> None:
    box = torch.zeros(2, 8, 8, dtype=torch.bool)
    box[:, :, :3] = True
    two = InterPixelTerm(replace(KL, cutmix=CutMixPairs.two_regions), 2, ALONE)
    one = InterPixelTerm(replace(KL, cutmix=CutMixPairs.outside_only), 2, ALONE)

    both = (one([pair(box=box)]) + one([pair(box=~box)])) / 2

    assert two([pair(box=box)]).item() == pytest.approx(both.item())


def test_feature_resolution_reads_every_fourth_pixel() -> None:
    coarse = InterPixelTerm(replace(KL, resolution=Resolution.feature), 2, ALONE)
    whole = pair()
    small = Pair(
        "s1", whole.teacher[..., ::4, ::4], whole.student[..., ::4, ::4], whole.valid[:, ::4, ::4]
    )

    assert coarse([whole]).item() == pytest.approx(InterPixelTerm(KL, 2, ALONE)([small]).item())


def test_valid_images_divides_by_images_with_an_omega() -> None:
    given = pair()
    unsure = torch.cat([given.teacher[:1], torch.zeros_like(given.teacher[:1])])
    mixed = Pair("s1", unsure, given.student, given.valid)
    fair = replace(KL, divide_by=DivideBy.valid_images)

    assert InterPixelTerm(fair, 2, ALONE)([mixed]).item() == pytest.approx(
        2 * InterPixelTerm(KL, 2, ALONE)([mixed]).item()
    )


def test_batch_scope_spans_all_images_with_one_distribution() -> None:
    given = pair()
    wide = [x.transpose(0, 1).flatten(1).view(1, 3, 2, 64) for x in (given.teacher, given.student)]
    joined = Pair("s1", wide[0], wide[1], torch.ones(1, 2, 64, dtype=torch.bool))

    spanning = InterPixelTerm(replace(KL, scope=Scope.batch), 2, ALONE)([given])

    assert spanning.item() == pytest.approx(InterPixelTerm(KL, 1, ALONE)([joined]).item())


def test_batch_scope_refuses_several_ranks() -> None:
    with pytest.raises(ValueError, match="one rank; this run has 2"):
        InterPixelTerm(replace(KL, scope=Scope.batch), 4, Ranks(0, 2, torch.device("cpu")))


def test_padding_enters_omega_only_when_asked() -> None:
    given = pair()
    padded = Pair("s1", given.teacher, given.student, torch.zeros(2, 8, 8, dtype=torch.bool))

    assert InterPixelTerm(KL, 2, ALONE)([padded]).item() == 0.0
    anyway = InterPixelTerm(replace(KL, omega_ignore_padding=False), 2, ALONE)([padded])
    assert anyway.item() == pytest.approx(InterPixelTerm(KL, 2, ALONE)([given]).item())
