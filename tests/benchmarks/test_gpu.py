"""The table of a GPU: its code runs on a CPU, and words stand where no card is."""

import time

import pytest
import torch

from benchmarks import gpu
from benchmarks.two_steps import Case, made_up
from trainer.config.schema import RunConfig
from trainer.distributed import init_process_group

TINY = Case(model="resnet8", crop=17, batch=2, classes=3)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_the_table_has_a_row_for_every_way_and_says_that_bits_repeat(device: str) -> None:
    run, until = RunConfig(device=device), time.monotonic() + 600

    lines = list(gpu.report({"tiny": TINY}, run, steps=1, until=until))

    rows = [line for line in lines if line.startswith(("| official", "| ours"))]
    assert len(rows) == len(gpu.ROWS)
    assert all(float(row.split("|")[2]) > 0 for row in rows)
    proofs = [line for line in lines if "repeated: the same bits, resumed: the same bits" in line]
    assert len(proofs) == 3


def test_what_no_time_is_left_for_is_said() -> None:
    lines = list(gpu.report({"tiny": TINY}, RunConfig(device="cpu"), steps=1, until=0.0))

    assert sum("left out: no time" in line for line in lines) == len(gpu.ROWS) + 3


def test_weights_that_stand_still_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "digests", lambda *_, **__: ["same"] * 6)
    run = RunConfig(device="cpu")

    assert "nothing is shown" in gpu.verdict(TINY, init_process_group(run), run)


def test_other_bits_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([list("abcdef"), list("abcdef"), list("abcdeg")])
    monkeypatch.setattr(gpu, "digests", lambda *_, **__: next(answers))
    run = RunConfig(device="cpu")

    said = gpu.verdict(TINY, init_process_group(run), run)

    assert "repeated: the same bits, resumed: OTHER BITS" in said


def test_without_a_card_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["only=nothing"] if torch.cuda.is_available() else []

    assert gpu.main(words) == 2

    said = capsys.readouterr().err
    assert "Unknown case 'nothing'" in said or "needs a CUDA device" in said


def test_made_up_batches_have_padding_boxes_and_ignored_pixels() -> None:
    ranks = init_process_group(RunConfig(device="cpu"))

    labelled, unlabelled = made_up(TINY, ranks, num_bits=8, seed=0)

    assert (labelled.masks == 255).any()
    assert unlabelled.padded.any()
    assert all(box.any() for box in unlabelled.boxes)
