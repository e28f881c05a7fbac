"""What the table says of the bits of a step, and the made-up batches."""

import pytest
import torch

from benchmarks.gpu import steps
from benchmarks.two_steps import Case, made_up
from trainer.config.schema import RunConfig
from trainer.distributed import init_process_group

TINY = Case(model="resnet8", crop=17, batch=2, classes=3)


def test_weights_that_stand_still_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "digests", lambda *_, **__: ["same"] * 6)
    run = RunConfig(device="cpu")

    assert "nothing is shown" in steps.verdict(TINY, init_process_group(run), run).remark


def test_other_bits_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([list("abcdef"), list("abcdef"), list("abcdeg"), list("abcdef")])
    monkeypatch.setattr(steps, "digests", lambda *_, **__: next(answers))
    run = RunConfig(device="cpu")

    said = steps.verdict(TINY, init_process_group(run), run).remark

    assert "repeated: the same bits, resumed: OTHER BITS, run.graph=step: the same bits" in said


def test_made_up_batches_have_padding_boxes_and_ignored_pixels() -> None:
    ranks = init_process_group(RunConfig(device="cpu"))

    labelled, unlabelled = made_up(TINY, ranks, seed=0)

    assert (labelled.masks == 255).any()
    assert unlabelled.padded.any()
    assert all(box.any() for box in unlabelled.boxes)
    assert labelled.keep.shape == (2, 36 * TINY.config.model.width)
    assert labelled.images.device == torch.device("cpu")
