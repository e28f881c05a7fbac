"""The whole table of a card, run small on a CPU, so that the command cannot rot."""

import re
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.entries import rows
from benchmarks.gpu.steps import ROWS
from benchmarks.input.files import Kind
from benchmarks.two_steps import Case
from trainer.config.schema import RunConfig

TINY = Case(model="resnet8", crop=17, batch=2, classes=3)
FILES = Kind("tiny", (34, 26), "png", 9.0, 3, 17, 2)
WAYS = ("files, fp32", "files, bf16", "decoded cache, fp32", "decoded cache, bf16")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.long
@pytest.mark.parametrize("device", DEVICES)
def test_every_entry_is_measured_or_left_out_with_a_reason(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu.FILES, "tiny", FILES)
    run, cases = RunConfig(device=device, loader_workers=1), {"tiny": TINY}

    machine = gpu.machine_of(run, cases, tmp_path)
    table = "\n".join(
        rows(gpu.entries(cases, machine, steps=1), until=time.monotonic() + 600)
    ).splitlines()[2:]

    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    remarks = {name.removeprefix("tiny: "): remark for name, *_, remark in cells}
    measured = {name.removeprefix("tiny: ") for name, ms, *_ in cells if ms}
    bits = [remark for name, remark in remarks.items() if name.startswith("bits")]
    assert len(remarks) == len(table)
    assert not [remark for remark in remarks.values() if remark.startswith("failed")]
    assert {f"step, {row.name}" for row in ROWS} <= measured
    assert {f"end to end from {way}" for way in WAYS} <= measured
    assert {"step, 2 ranks, fp32", "step, 2 ranks, bf16", "checkpoint"} <= measured
    assert "evaluation of 34x26 in windows of 17, fp32" in measured
    assert [remark.count("the same bits") for remark in bits] == [3, 3, 3]
    assert remarks["step, 4 ranks, fp32"].startswith("left out: 4 ranks need 4 cards")
    for precision in ("fp32", "tf32", "bf16"):
        found = remarks[f"dilated convolutions, {precision}"]
        assert re.match("by (oneDNN|cuDNN); at most .* an undilated one", found)
    assert "native_batch_norm" in remarks["batch norm, fp32"] or device == "cuda"
    assert "1 workers" in remarks["end to end from files, fp32"]


def test_without_a_card_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["only=nothing"] if torch.cuda.is_available() else []

    assert gpu.main(words) == 2

    said = capsys.readouterr().err
    assert "Unknown case 'nothing'" in said or "needs a CUDA device" in said


def test_the_command_names_its_machine_and_ends_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["only=trial", "device=cpu", "minutes=-1"]) == 0

    first, _, _, _, *table = capsys.readouterr().out.splitlines()
    assert "on a CPU: a trial of the code" in first
    assert table
    assert all("left out: " in row for row in table)
