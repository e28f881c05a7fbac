"""Every precision trains every method on any number of ranks: the same objective up to rounding."""

import json
from functools import cache
from pathlib import Path

import pytest

from tests.support.process_groups import run_ranks
from tests.support.tiny_config import tiny_config
from trainer.run import train

pytestmark = pytest.mark.long

METHODS = (("supervised_star", "none"), ("fixmatch_star", "none"), ("unimatch_star", "kl"))
PRECISIONS = ("fp32", "tf32", "bf16")
RUNS = [(method, loss, precision) for method, loss in METHODS for precision in PRECISIONS]


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def train_all(data_root: Path, folder: Path) -> None:
    """One epoch of every method in every precision, by the ranks of this group."""
    for run in RUNS:
        method, loss, precision = run
        words = (f"method={method}", f"loss={loss}", f"optim.precision={precision}")
        config = tiny_config(data_root, *words, "optim.epochs=1", "run.log_steps=1")
        train(config, folder / "-".join(run))


@pytest.fixture(scope="module")
def runs(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """The losses of a run on a number of ranks; all runs of one number are trained at once."""

    @cache
    def trained(world_size: int) -> dict[tuple[str, str, str], list[float]]:
        folder = tmp_path_factory.mktemp(f"ranks-{world_size}")
        run_ranks(train_all, world_size, drawn_root, folder)
        return {run: losses(folder / "-".join(run)) for run in RUNS}

    return trained


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("run", RUNS, ids="-".join)
def test_a_precision_changes_the_losses_by_its_rounding_alone(runs, run, world_size: int) -> None:
    alone = runs(1)[(*run[:2], "fp32")]

    together = runs(world_size)[run]

    assert len(together) == len(alone) >= 3
    # Three steps at a rate of 0.01: bfloat16 has eight bits, and its errors grow with the steps.
    tolerance = 5e-2 if run[2] == "bf16" else 1e-4
    assert together == pytest.approx(alone, rel=tolerance)
