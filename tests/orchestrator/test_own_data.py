"""Two folders of somebody's own images under one root: never taken for each other."""

from pathlib import Path

import pytest
import yaml

from datasets.__main__ import main
from orchestrator.planning.plan import PlannedCell, State, make_plan
from tests.datasets import trees
from tests.datasets.strategies import labels
from tests.orchestrator.launching import TINY, Lab
from trainer.checkpoint import CheckpointError
from trainer.config.compose import compose
from trainer.run import train

SMALL = (
    *("model=resnet14_w8", "model.init=random", "data.crop=32", "optim.epochs=1"),
    *("run.checkpoint_steps=1", "run.device=cpu", "method=supervised", "loss=none"),
)


def images(root: Path, seed: int) -> Path:
    """Twelve labelled images of the same names and sizes, whatever the seed."""
    for index in range(12):
        trees.put(root / f"photos/i{index:02d}.jpg", trees.jpeg(seed + index))
        mask = trees.grey_png(labels(seed + index, trees.SIZE, 3))
        trees.put(root / f"truth/i{index:02d}.png", mask)
    described = {
        "classes": ["background", "cell", "wall"],
        "images": "photos/{id}.jpg",
        "masks": "truth/{id}.png",
    }
    trees.put(root / "dataset.yaml", yaml.safe_dump(described))
    main(["prepare", "folder", f"root={root}"])
    return root


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return images(tmp_path / "first", 0), images(tmp_path / "second", 100)


def test_a_cell_done_on_other_images_is_drifted_until_it_runs_again(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    lab = Lab(tmp_path, two[0])
    base = {"recipe": "folder", "split": "all", "crop": 32, "backbone": "resnet14_w8"}
    cell = {"base": {**base, "method": "supervised", "loss": "none"}}
    overrides = [*SMALL[1:2], "optim.epochs=1", "optim.batch=4", *TINY[2:]]
    lab.grid.write_text(yaml.safe_dump({"title": "T", "overrides": overrides, "cells": [cell]}))

    def planned(root: Path) -> PlannedCell:
        plan = make_plan(str(lab.grid), str(lab.root), overrides=[f"data.root={root}"])
        return plan.cells[0]

    lab.run("launch", "backend=inline")
    assert [planned(root).state for root in two] == [State.done, State.drifted]

    second = Lab(tmp_path, two[1])
    assert "rerun=drifted" in second.run("launch", "backend=inline", code=10)
    assert "other images" in planned(two[1]).why
    second.run("launch", "backend=inline", "rerun=drifted")

    assert [planned(root).state for root in two] == [State.drifted, State.done]
    assert [row.attempt for row in second.rows().values()] == [2]


def test_a_checkpoint_of_other_images_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = (compose(["recipe=folder", *SMALL, f"data.root={root}"]) for root in two)
    train(first, tmp_path / "run", should_stop=lambda: True)

    with pytest.raises(CheckpointError, match="cannot go on bit for bit: data was "):
        train(second, tmp_path / "run")
