"""Pixel-wise losses against plain torch and brute force."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tests.support.process_groups import run_ranks
from trainer.config.schema import Criterion, OptimConfig
from trainer.distributed import Ranks
from trainer.losses import Target, hard_pixels, labelled_loss, pseudo_label_loss

ALONE = Ranks(0, 1, torch.device("cpu"))


def drawn(seed: int, ignored: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3.0 * torch.randn(2, 4, 6, 5, generator=generator, dtype=torch.float64)
    masks = torch.randint(0, 4, (2, 6, 5), generator=generator)
    masks[torch.rand(2, 6, 5, generator=generator) < ignored] = 255
    return logits, masks


def brute_force_ohem(
    logits: torch.Tensor, masks: torch.Tensor, threshold: float, min_kept: int
) -> list[bool]:
    """OHEM pixel by pixel, as the UniMatch code defines it."""
    probabilities = []
    for b, y, x in ((b, y, x) for b in range(2) for y in range(6) for x in range(5)):
        truth = int(masks[b, y, x])
        exps = [float(v) for v in logits[b, :, y, x].float().softmax(0)]
        probabilities.append(1.0 if truth == 255 else exps[truth])
    valid = [int(v) != 255 for v in masks.flatten()]
    if sum(valid) < min_kept:
        return valid
    limit = max(threshold, sorted(probabilities)[min(min_kept, 60) - 1])
    return [v and p <= limit for v, p in zip(valid, probabilities, strict=True)]


@given(
    seed=st.integers(0, 500),
    threshold=st.sampled_from([0.1, 0.3, 0.7, 0.95]),
    per_image=st.integers(1, 40),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_ohem_keeps_the_pixels_brute_force_keeps(
    seed: int, threshold: float, per_image: int, ignored: float
) -> None:
    logits, masks = drawn(seed, ignored)

    kept = hard_pixels(
        logits, masks, threshold=threshold, min_kept_per_image=per_image, batch=2, ranks=ALONE
    )

    assert kept.flatten().tolist() == brute_force_ohem(logits, masks, threshold, 2 * per_image)


def hard_pixels_of_a_rank(ignored: float) -> torch.Tensor:
    """Three images over two ranks: one and two of them."""
    ranks = Ranks(torch.distributed.get_rank(), 2, torch.device("cpu"))
    logits, masks = three_images(ignored)
    own = slice(0, 1) if ranks.is_first else slice(1, 3)
    return hard_pixels(
        logits[own], masks[own], threshold=0.1, min_kept_per_image=11, batch=3, ranks=ranks
    )


def three_images(ignored: float) -> tuple[torch.Tensor, torch.Tensor]:
    (logits, masks), (more, others) = drawn(1, ignored), drawn(2, ignored)
    return torch.cat([logits, more[:1]]), torch.cat([masks, others[:1]])


@pytest.mark.parametrize("ignored", [0.2, 0.9])
def test_ohem_keeps_the_same_pixels_with_uneven_ranks(ignored: float) -> None:
    logits, masks = three_images(ignored)
    alone = hard_pixels(logits, masks, threshold=0.1, min_kept_per_image=11, batch=3, ranks=ALONE)

    rows = run_ranks(hard_pixels_of_a_rank, 2, ignored)

    assert torch.equal(torch.cat(rows), alone)
    assert alone.any()


def test_cross_entropy_is_the_mean_over_labelled_pixels() -> None:
    logits, masks = drawn(1)

    loss = labelled_loss(logits, masks, optim=OptimConfig(), batch=2, ranks=ALONE)

    expected = functional.cross_entropy(logits, masks, ignore_index=255)
    torch.testing.assert_close(loss, expected)


def test_ohem_loss_is_the_mean_over_hard_pixels() -> None:
    logits, masks = drawn(2)
    optim = OptimConfig(criterion=Criterion.ohem, ohem_min_kept_per_image=5)
    kept = hard_pixels(logits, masks, threshold=0.7, min_kept_per_image=5, batch=2, ranks=ALONE)

    loss = labelled_loss(logits, masks, optim=optim, batch=2, ranks=ALONE)

    expected = functional.cross_entropy(logits, masks.masked_fill(~kept, 255), ignore_index=255)
    torch.testing.assert_close(loss, expected)


def test_a_batch_without_a_label_costs_nothing_and_is_no_nan() -> None:
    logits, masks = drawn(3, ignored=1.1)
    logits.requires_grad_(True)

    loss = labelled_loss(logits, masks, optim=OptimConfig(), batch=2, ranks=ALONE)
    loss.backward()

    assert loss.item() == 0.0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_pseudo_labels_divide_by_real_pixels_not_by_confident_ones() -> None:
    student, _ = drawn(4)
    teacher, padding = drawn(5)
    valid = padding != 255
    target = Target.of(teacher, valid)

    loss = pseudo_label_loss(student.float(), target, confidence=0.9, num_pixels=valid.sum())

    probability, classes = teacher.float().softmax(1).max(1)
    every = functional.cross_entropy(student.float(), classes, reduction="none")
    expected = every[(probability >= 0.9) & valid].sum() / valid.sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_target_reads_confidence_and_class_as_softmax_does() -> None:
    logits, _ = drawn(6)
    target = Target.of(logits.requires_grad_(True), torch.ones(2, 6, 5, dtype=torch.bool))

    probability, classes = logits.float().softmax(1).max(1)

    torch.testing.assert_close(target.confidence, probability)
    assert (target.classes == classes).all()
    assert not target.logits.requires_grad


def test_pasting_takes_every_part_from_the_partner_inside_the_box() -> None:
    (one, _), (two, _) = drawn(7), drawn(8)
    mine = Target.of(one, torch.ones(2, 6, 5, dtype=torch.bool))
    other = Target.of(two, torch.zeros(2, 6, 5, dtype=torch.bool))
    box = torch.zeros(2, 6, 5, dtype=torch.bool)
    box[:, :3] = True

    mixed = mine.pasted(other, box)

    for name in ("logits", "confidence", "classes", "valid"):
        part, inside, outside = (getattr(t, name) for t in (mixed, other, mine))
        assert (part[..., :3, :] == inside[..., :3, :]).all()
        assert (part[..., 3:, :] == outside[..., 3:, :]).all()
