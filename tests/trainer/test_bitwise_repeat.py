"""The same run in two processes: one digest after every step, on every kind of device here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.process_groups import in_fresh_process
from tests.support.tiny_config import TINY
from trainer.config.compose import compose
from trainer.run import train

pytestmark = pytest.mark.long

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

# Digests of weights, average and momentum after each step, and of the weights at the end.
SCRIPT = """
import sys
from pathlib import Path
from trainer.config.compose import compose
from trainer.run import train

def show(report):
    print(report.state.digest(), bool(report.terms["loss"].isfinite()))

config = compose(sys.argv[2:])
print(train(config, Path(sys.argv[1]), on_step=show).weights_sha256)
"""


def digests_of_a_process(folder: Path, overrides: list[str]) -> list[str]:
    """Digests after each step and of the weights at the end; in a process of its own."""
    lines: list[str] = []
    summary = train(
        compose(overrides), folder, on_step=lambda report: lines.append(report.state.digest())
    )
    return [*lines, str(summary.weights_sha256)]


def digests(folder: Path, overrides: list[str], **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), *overrides],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("device", DEVICES)
def test_two_processes_give_one_digest_after_every_step(
    drawn_root: Path, tmp_path: Path, device: str
) -> None:
    overrides = [*TINY, f"data.root={drawn_root}", "loss=kl", "optim.epochs=2"]
    overrides += ["method.teacher=ema", f"run.device={device}"]

    first = digests(tmp_path / "a", overrides, PYTHONHASHSEED="1")
    # Where samples are prepared, how strings hash and what OpenMP is told must not matter.
    second = digests(
        tmp_path / "b",
        [*overrides, "run.loader_workers=2"],
        PYTHONHASHSEED="2",
        OMP_NUM_THREADS="7",
        MKL_NUM_THREADS="3",
    )

    assert len(first) == len(set(first)) == 7  # six steps, each moving the weights, and the end
    assert all(line.endswith("True") for line in first[:-1])
    assert len(first[-1]) == 64
    assert second == first


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_stopped_on_its_device_goes_on_with_the_same_bits(
    drawn_root: Path, tmp_path: Path, device: str
) -> None:
    # With a card the tests of `test_resume.py` say nothing about it: they run on the CPU.
    overrides = [*TINY, f"data.root={drawn_root}", "loss=cr", "optim.epochs=1"]
    overrides += [f"run.device={device}", "run.checkpoint_steps=1"]
    straight = in_fresh_process(digests_of_a_process, tmp_path / "a", overrides)
    for path in (tmp_path / "a" / "checkpoints").glob("step-00000003.*"):
        path.unlink()  # as if it had been killed after its second step

    resumed = in_fresh_process(digests_of_a_process, tmp_path / "a", overrides)

    assert resumed == straight[2:]
    assert len(straight) == len(set(straight)) == 4
