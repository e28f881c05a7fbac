"""Stopped at any step, a run goes on as if it had not been; digests of every tensor decide."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.process_groups import run_ranks, start_trainer
from tests.support.tiny_config import TINY, tiny_config
from trainer.checkpoint_manifest import newest_step
from trainer.determinism import digest
from trainer.run import train

pytestmark = pytest.mark.long


def stop_after(steps: int) -> Callable[[], bool]:
    """An answer that becomes True once it was asked that often."""
    asked = [0]

    def answer() -> bool:
        asked[0] += 1
        return asked[0] >= steps

    return answer


def final_digest(folder: Path) -> str:
    """Sha256 of weights, average and momentum in the newest checkpoint."""
    step = newest_step(folder)
    assert step is not None
    packed = torch.load(folder / "checkpoints" / f"step-{step:08d}.pt", weights_only=True)
    return digest(packed["tensors"])


def straight(root: Path, folder: Path, overrides: list[str]) -> tuple[str, str]:
    """A run nobody stops: digest of its state, sha256 of its weights."""
    summary = train(tiny_config(root, *overrides), folder)
    assert summary.weights_sha256 is not None
    return final_digest(folder), summary.weights_sha256


def in_pieces(root: Path, folder: Path, overrides: list[str], stops: list[int]) -> tuple[str, str]:
    """The same run stopped after so many further steps each time."""
    for steps in stops:
        summary = train(tiny_config(root, *overrides), folder, should_stop=stop_after(steps))
        assert summary.status == "stopped"
    return straight(root, folder, overrides)


@pytest.mark.parametrize("loss", ["kl", "cr"])
def test_stopping_at_every_step_of_twelve_changes_no_bit(
    drawn_root: Path, tmp_path: Path, loss: str
) -> None:
    overrides = [f"loss={loss}", "evaluation.every_epochs=2"]
    expected = straight(drawn_root, tmp_path / "straight", overrides)

    config, each = tiny_config(drawn_root, *overrides), tmp_path / "each"
    for step in range(1, 12):
        assert train(config, each, should_stop=stop_after(1)).status == "stopped"
        once = shutil.copytree(each, tmp_path / f"{step}")
        assert straight(drawn_root, once, overrides) == expected, f"stopped after step {step}"
    assert straight(drawn_root, each, overrides) == expected


def test_an_ema_teacher_is_resumed_too(drawn_root: Path, tmp_path: Path) -> None:
    overrides = ["loss=kl", "method.teacher=ema", "method.pseudo_labels=teacher"]
    expected = straight(drawn_root, tmp_path / "a", overrides)

    assert in_pieces(drawn_root, tmp_path / "b", overrides, [3, 4]) == expected


def test_how_often_checkpoints_are_written_changes_no_bit(drawn_root: Path, tmp_path: Path) -> None:
    expected = straight(drawn_root, tmp_path / "a", ["loss=kl"])

    often = straight(drawn_root, tmp_path / "b", ["loss=kl", "run.checkpoint_steps=1"])

    assert often == expected


def test_scores_of_a_resumed_run_are_those_of_the_straight_one(
    drawn_root: Path, tmp_path: Path
) -> None:
    config = tiny_config(drawn_root, "loss=kl")
    expected = train(config, tmp_path / "a")
    train(config, tmp_path / "b", should_stop=stop_after(7))

    resumed = train(config, tmp_path / "b")

    for name in (
        "best_miou_percent",
        "best_epoch",
        "best_iou_percent",
        "last_iou_percent",
        "weights_sha256",
        "epochs",
        "steps",
        "data_fingerprint",
        "split_checksum",
    ):
        assert getattr(resumed, name) == getattr(expected, name), name
    assert metric_lines(tmp_path / "b") == metric_lines(tmp_path / "a")


def metric_lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train_rank(root: str, folder: str, overrides: list[str], stops: list[int]) -> tuple[str, ...]:
    """One rank of a run in pieces."""
    return in_pieces(Path(root), Path(folder), overrides, stops)


def test_several_ranks_stopped_and_resumed_change_no_bit(drawn_root: Path, tmp_path: Path) -> None:
    root, overrides = str(drawn_root), ["loss=kl"]
    expected = run_ranks(train_rank, 3, root, str(tmp_path / "a"), overrides, [])

    with_workers = [*overrides, "run.loader_workers=2"]
    resumed = run_ranks(train_rank, 3, root, str(tmp_path / "b"), with_workers, [1, 4, 3])

    assert len(set(expected)) == 1
    assert resumed == expected


@pytest.fixture(scope="module")
def straight_in_one_go(
    drawn_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    return straight(drawn_root, tmp_path_factory.mktemp("straight"), ["loss=kl"])


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_at_a_random_moment_and_again_changes_no_bit(
    drawn_root: Path, tmp_path: Path, straight_in_one_go: tuple[str, str], seed: int
) -> None:
    folder = tmp_path / "killed"
    words = [*TINY, "loss=kl", "run.checkpoint_steps=2"]
    words += [f"data.root={drawn_root}", f"run.folder={folder}"]
    kills = 0
    for attempt in range(4):
        command = start_trainer(words, tmp_path)
        wanted = 2 + 2 * attempt + seed
        while command.process.is_alive() and _step(folder) < wanted:
            time.sleep(0.002 * (seed + 1))
        kills += command.process.is_alive()
        command.process.kill()
        command.wait()

    done = subprocess.run(
        [sys.executable, "-m", "trainer", *words],
        env={**os.environ, "OMP_NUM_THREADS": "7"},  # the run pins its own threads
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert kills > 0
    assert final_digest(folder) == straight_in_one_go[0]
    assert f"weights {straight_in_one_go[1]}" in done.stdout


def _step(folder: Path) -> int:
    """Steps of the run so far, from the newest checkpoint."""
    newest = newest_step(folder)
    return 0 if newest is None else newest
