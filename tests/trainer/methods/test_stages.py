"""Methods of several trainings: each begins anew, and the work between them is done once."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from datasets.dataset import open_dataset
from datasets.files import atomic_write
from datasets.images.decode import indexed_png
from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import in_pieces, metric_lines, stop_after, straight
from trainer.checkpoint import CheckpointError
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.losses import labelled_loss
from trainer.method_registry import METHODS, MethodFacts
from trainer.methods.interface import (
    Method,
    MethodContext,
    NetworkSpec,
    StageInput,
    StageStart,
    StepInput,
    StepResult,
)
from trainer.network.deeplab import normalise
from trainer.run import train
from trainer.run_log import RunLog
from trainer.schedule import Schedule, Stage, learning_rate
from trainer.stages.labelling import Labelling
from trainer.stages.products import Products


def images_of(config: TrainConfig, num_labelled: int, num_unlabelled: int) -> dict[str, int]:
    return {"first": num_labelled, "second": num_unlabelled}


@dataclass(frozen=True)
class Twice(Method):
    """Trains, counts to three, and trains again beside the network of the first epoch."""

    context: MethodContext

    def networks(self) -> dict[str, NetworkSpec]:
        return {"student": NetworkSpec(), "old": NetworkSpec(is_trained=False)}

    def kept_epochs(self, stage: Stage) -> dict[str, int]:
        return {"old": 1} if stage.name == "first" else {}

    def before_stage(self, given: StageInput) -> StageStart:
        if given.stage.name == "first":
            return StageStart(given.dataset)
        path = given.folder / "count.txt"
        path.parent.mkdir(exist_ok=True)
        for number in range(3):
            if not path.exists() or len(path.read_text()) <= number:
                atomic_write(path, "x" * (number + 1))
            given.tick("counted", number + 1, 3)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return StageStart(given.dataset, {"old": "first-old"}, digest)

    def step(self, given: StepInput) -> StepResult:
        config, masks = self.context.config, given.labelled.masks
        logits = given.student(normalise(given.labelled.images))
        loss = labelled_loss(
            logits, masks, optim=config.optim, batch=config.batch, ranks=self.context.ranks
        )
        return StepResult(loss, (), {"loss_labelled": loss.detach()})


@pytest.fixture
def overrides(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two stages of two epochs: of one step each, then of three."""
    facts = MethodFacts(
        f"{__name__}.Twice", passes=1.0, needs_unlabelled=False, stages=f"{__name__}.images_of"
    )
    monkeypatch.setitem(METHODS, "twice", facts)
    return ["method.algorithm=twice", "optim.epochs=2", "run.log_steps=1"]


def test_each_stage_has_its_own_epochs_and_schedule(
    drawn_root: Path, tmp_path: Path, overrides: list[str]
) -> None:
    config = tiny_config(drawn_root, *overrides)
    steps = Schedule.of(config, num_labelled=5, num_unlabelled=15)

    summary = train(config, tmp_path)

    assert (steps.total_steps, steps.epochs) == (8, 4)
    assert [steps.epochs_done(step) for step in range(9)] == [0, 1, 2, 2, 2, 3, 3, 3, 4]
    assert (summary.status, summary.steps, summary.epochs, summary.last_epoch) == ("done", 8, 4, 4)
    assert summary.best_epoch in (3, 4)  # of the last stage alone
    lines = [line for line in metric_lines(tmp_path) if "lr" in line]
    expected = [learning_rate(config, k, n) for n in (2, 6) for k in range(n)]
    assert [line["lr"] for line in lines] == expected
    assert lines[2]["epoch"] == pytest.approx(2 + 1 / 3)
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert (progress["total_steps"], progress["epochs"]) == (8, 4)


def test_work_between_stages_is_told_and_its_time_is_that_of_no_step(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    log = RunLog(tmp_path, total_steps=8, epochs=4, on_progress=told.append)
    for step in (0, 2):
        log.progress(step, images=4, force=True)
    for number in (1, 2):
        log.progress(2, images=4, force=True, work=f"counted {number}/2")
    log.progress(4, images=4, force=True)

    rates = [progress["images_per_second"] for progress in told]
    assert rates[1] == rates[2] == rates[3] > 0
    assert told[3]["seconds_left"] == told[1]["seconds_left"]
    assert [progress.get("work") for progress in told[1:]] == [
        None,
        "counted 1/2",
        "counted 2/2",
        None,
    ]


def test_reading_many_masks_again_gives_signs_of_life(drawn_root: Path, tmp_path: Path) -> None:
    config = tiny_config(drawn_root)
    dataset = open_dataset(config.data)
    names = [f"{number}" for number in range(200)]
    products, told = Products(tmp_path, dataset.num_classes), []
    png = indexed_png(Image.new("L", (4, 4)), dataset.spec)
    (tmp_path / "masks").mkdir()
    for path in products.paths(names).values():
        path.write_bytes(png)

    alone = Ranks(0, 1, torch.device("cpu"))
    work = Labelling(config, alone, dataset, lambda *words: told.append(words))
    work.masks(names, products, network=nn.Identity)

    assert told == [("checked masks", 100, 200), ("checked masks", 200, 200)]


def test_a_stage_begins_with_first_weights_and_what_was_kept(
    drawn_root: Path, tmp_path: Path, overrides: list[str]
) -> None:
    config = tiny_config(drawn_root, *overrides)
    firsts = []

    def look(report: object) -> None:
        tensors = report.state.tensors()
        firsts.append({name: value.clone() for name, value in tensors.items()})

    train(config, tmp_path, on_step=look)

    kept = torch.load(tmp_path / "checkpoints" / "first-old.pt", weights_only=True)
    name = "classifier.weight"
    assert torch.equal(kept["weights"][name], firsts[0][f"network.student.{name}"])
    assert torch.equal(kept["weights"][name], firsts[2][f"network.old.{name}"])
    # After one step the momentum is the gradient alone, as after the first step of the run.
    rate = learning_rate(config, 0, 6) * config.optim.head_lr_factor
    moved = firsts[2][f"network.student.{name}"] + rate * firsts[2][f"momentum.student.{name}"]
    begun = (
        firsts[0][f"network.student.{name}"]
        + (learning_rate(config, 0, 2) * config.optim.head_lr_factor)
        * (firsts[0][f"momentum.student.{name}"])
    )
    assert torch.allclose(moved, begun, atol=1e-7)


def test_stopped_at_every_step_and_in_the_work_between_it_ends_with_the_same_bits(
    drawn_root: Path, tmp_path: Path, overrides: list[str]
) -> None:
    expected = straight(drawn_root, tmp_path / "straight", overrides)

    # Two steps; two of three counts; all counts; and then, after them, one further step each time.
    stops = [1, 1, 2, 3, 4, 4, 4, 4, 4]
    assert in_pieces(drawn_root, tmp_path / "pieces", overrides, stops) == expected
    assert (tmp_path / "pieces" / "stages" / "count.txt").read_text() == "xxx"


def test_products_and_networks_that_changed_are_refused(
    drawn_root: Path, tmp_path: Path, overrides: list[str]
) -> None:
    config = tiny_config(drawn_root, *overrides)
    train(config, tmp_path, should_stop=stop_after(2))
    kept = tmp_path / "checkpoints" / "first-old.pt"
    whole = kept.read_bytes()
    kept.write_bytes(b"x")

    with pytest.raises(CheckpointError, match="of an earlier stage, is missing or damaged"):
        train(config, tmp_path)
    kept.write_bytes(whole)
    train(config, tmp_path, should_stop=stop_after(5))
    (tmp_path / "stages" / "count.txt").write_text("yyy")
    with pytest.raises(CheckpointError, match="stages holds other products"):
        train(config, tmp_path)
