"""ST++ against a plain transcription of its three trainings, and whatever may interrupt them."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.official_step import inter_pixel
from datasets.dataset import open_dataset
from datasets.images.predicted import PredictedMasks
from datasets.loading.batches import ViewPlan
from datasets.loading.loader import BatchPlan, batches
from tests.support.tiny_config import tiny_config
from trainer.config.compose import compose
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.network.deeplab import normalise
from trainer.run import train
from trainer.schedule import Schedule
from trainer.stages import labelling
from trainer.state import new_state

ALONE = Ranks(0, 1, torch.device("cpu"))
SHORT = (
    "method=st_plusplus",
    "loss=kl",
    "loss.threshold=0.1",
    "optim.epochs=3",
    "optim.batch=1",
    "optim.lr=0.007",
    "optim.head_lr_factor=1",
    "model.width=8",
    "data.drawn.num_train=8",
    "data.split=n4",  # and 4 images without label
    "evaluation.every_epochs=3",
)
Array = NDArray[Any]


def resized(x: Array, height: int, width: int) -> Array:
    """(C, H, W) by the two nearest rows and columns, corners on corners."""
    for axis, size in ((1, height), (2, width)):
        place = np.linspace(0, x.shape[axis] - 1, size)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        share = (place - low).reshape((-1, 1) if axis == 1 else (1, -1))
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return x


def predicted(net: nn.Module, pixels: Array) -> Array:
    with torch.no_grad():
        return net(torch.from_numpy(pixels)[None])[0].numpy()


def labelled_by(net: nn.Module, pixels: Array) -> Array:
    """Classes by five scales, each also mirrored."""
    _, height, width = pixels.shape
    total = 0.0
    for scale in (0.5, 0.75, 1.0, 1.5, 2.0):
        small = resized(pixels, int(height * scale), int(width * scale))
        for step in (1, -1):
            logits = predicted(net, small[:, :, ::step].copy())
            shares = np.exp(logits - logits.max(0))
            total = total + resized((shares / shares.sum(0))[:, :, ::step], height, width)
    return total.argmax(0).astype(np.uint8)


def agreement(one: Array, other: Array) -> float:
    """Mean IoU of two predictions, over the classes that one of them shows."""
    ious = []
    for label in set(one.flat) | set(other.flat):
        both, either = (one == label) & (other == label), (one == label) | (other == label)
        ious.append(both.sum() / either.sum())
    return float(np.mean(ious))


class Transcription:
    """The trainings one after another, as the paper's Algorithm has them."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self.config, self.folder, self.data = config, folder, open_dataset(config.data)
        self.losses: list[float] = []
        images = {name: self.data.tree.image(name) for name in self.data.split.unlabelled}
        self.pixels = {
            name: normalise(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])[0]
            .double()
            .numpy()
            for name, image in images.items()
        }

    def run(self) -> nn.Module:
        split = self.data.split
        repeats = 2  # fewer than 200 labels
        early, late, last = self.training(repeats, {}, None)
        scores = {
            name: np.mean(
                [
                    agreement(predicted(net, x).argmax(0), predicted(last, x).argmax(0))
                    for net in (early, late)
                ]
            )
            for name, x in self.pixels.items()
        }
        self.scores = scores
        ranked = sorted(split.unlabelled, key=lambda name: -scores[name])
        half = ranked[: len(ranked) // 2]
        masks = self.written("reliable", last, [n for n in split.unlabelled if n in half])
        repeats = math.ceil(len(masks) / len(split.labelled))
        second = self.training(repeats, masks, last)[-1]
        masks |= self.written("all", second, [n for n in split.unlabelled if n not in half])
        repeats = math.ceil(len(masks) / len(split.labelled))
        return self.training(repeats, masks, second)[-1]

    def written(self, name: str, net: nn.Module, names: list[str]) -> dict[str, Path]:
        paths = {}
        for image in names:
            paths[image] = self.folder / name / f"{image}.png"
            paths[image].parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labelled_by(net, self.pixels[image])).save(paths[image])
        return paths

    def training(
        self, repeats: int, masks: dict[str, Path], teacher: nn.Module | None
    ) -> list[nn.Module]:
        """The network after each epoch, in evaluation mode."""
        config, split, kept = self.config, self.data.split, []
        per_epoch = (repeats * len(split.labelled) + len(masks)) // 2
        total = per_epoch * config.optim.epochs
        net = new_state(config, 6, ALONE).networks["student"].double()
        optimiser = torch.optim.SGD(
            net.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4, foreach=False
        )
        for step, batch in enumerate(self.batches(repeats, masks, total)):
            logits = net.train()(normalise(batch.strong))
            loss = functional.cross_entropy(logits, batch.masks, ignore_index=255)
            if teacher is not None:
                rows = batch.is_predicted
                with torch.no_grad():
                    soft = teacher(normalise(batch.images))[rows]
                pair = (logits[rows], soft, (batch.masks != 255)[rows])
                ramp = math.exp(-5 * (1 - step / per_epoch) ** 2) if step < per_epoch else 1.0
                if rows.any():
                    loss = loss + ramp * inter_pixel(*pair, "kl", config.loss.threshold, 4.0)
            self.losses.append(loss.item())
            optimiser.zero_grad()
            loss.backward()
            optimiser.param_groups[0]["lr"] = config.lr * (1 - step / total) ** 0.9
            optimiser.step()
            if (step + 1) % per_epoch == 0:
                copy = new_state(config, 6, ALONE).networks["student"]
                copy.load_state_dict(net.state_dict())
                kept.append(copy.eval())
        return kept

    def batches(self, repeats: int, masks: dict[str, Path], total: int) -> Iterator[Any]:
        views = ViewPlan(
            strong=0,
            boxes=0,
            has_partner=False,
            has_holes=True,
            labelled_strong=True,
            channel_bits=False,
        )
        data = replace(self.data, predicted=PredictedMasks(6, repeats, masks))
        plan = BatchPlan(batch=2, stop=total, unlabelled=False, views=views)
        config = self.config
        return (first for first, _ in batches(data, config.data, seed=config.seed, plan=plan))


@pytest.fixture
def restless(drawn_root: Path) -> tuple[nn.Module, list[Tensor]]:
    """A network that has seen some images and predicts many classes, and such images."""
    data = open_dataset(tiny_config(drawn_root).data)
    images = [
        torch.from_numpy(np.array(data.tree.image(name))).permute(2, 0, 1)
        for name in data.split.unlabelled[:4]
    ]
    net = new_state(tiny_config(drawn_root), 6, ALONE).networks["student"].double()
    for _ in range(30):
        net.train()(normalise(torch.stack(images)))
    return net.eval(), images


@pytest.mark.usefixtures("double_precision")
def test_masks_are_those_of_five_scales_and_their_mirror_images(
    restless: tuple[nn.Module, list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "normalise", lambda images: normalise(images).double())
    net, images = restless

    for image in images:
        classes = labelling.augmented_classes(net, image[:, :39, :45]).numpy()  # odd sizes

        pixels = normalise(image[None, :, :39, :45])[0].double().numpy()
        assert np.array_equal(classes, labelled_by(net, pixels))
        assert len(np.unique(classes)) > 2


@pytest.mark.usefixtures("double_precision")
def test_reliability_is_the_mean_iou_of_two_predictions(
    restless: tuple[nn.Module, list[Tensor]],
) -> None:
    net, images = restless
    pixels = [normalise(image[None])[0].double().numpy() for image in images]
    classes = [predicted(net, x).argmax(0) for x in pixels]

    for image, own, other in zip(images, classes, classes[1:] + classes[:1], strict=True):
        found = labelling.image_miou(net, image, torch.from_numpy(other), 6)

        assert found.item() == pytest.approx(agreement(own, other), abs=1e-12)
        assert 0.0 < found.item() < 1.0
    same = labelling.image_miou(net, images[0], torch.from_numpy(classes[0]), 6)
    assert same.item() == 1.0


@pytest.mark.usefixtures("double_precision")
def test_three_trainings_give_the_losses_masks_and_weights_of_the_transcription(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "normalise", lambda images: normalise(images).double())
    config = tiny_config(tmp_path / "data", *SHORT)
    oracle = Transcription(config, tmp_path / "oracle")
    expected = oracle.run().state_dict()
    ours: list[float] = []

    summary = train(
        config, tmp_path / "run", on_step=lambda step: ours.append(step.terms["loss"].item())
    )

    assert summary.steps == 12 + 9 + 12
    assert len(set(oracle.scores.values())) > 2, "images differ in reliability"
    for stage, count in (("reliable", 2), ("all", 2)):
        masks = sorted((tmp_path / "oracle" / stage).rglob("*.png"))
        assert len(masks) == count
        for mask in masks:
            found = tmp_path / "run" / "stages" / stage / "masks" / mask.name
            assert np.array_equal(np.array(Image.open(found)), np.array(Image.open(mask)))
    assert ours == pytest.approx(oracle.losses, abs=1e-9)
    tensors = torch.load(tmp_path / "run" / "checkpoints" / "step-00000033.pt", weights_only=True)[
        "tensors"
    ]
    for name, value in expected.items():
        found = tensors[f"network.student.{name}"]
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-9, msg=name)


def test_runs_of_the_tables_have_the_steps_of_their_trainings() -> None:
    config = compose(["recipe=voc", "model=resnet50", "method=st_plusplus"])
    plain = compose(["recipe=voc", "model=resnet50", "method=st_plusplus", *PLAIN])

    many = Schedule.of(config, num_labelled=662, num_unlabelled=9920)
    few = Schedule.of(plain, num_labelled=92, num_unlabelled=10490)

    # 662; 8 x 662 + 4960; 15 x 662 + 9920 images, eight in each step, 80 epochs.
    assert [stage.steps for stage in many.stages] == [82 * 80, 1282 * 80, 2481 * 80]
    # Twice 92, as they are fewer than 200; 115 x 92 + 10,490.
    assert [stage.steps for stage in few.stages] == [23 * 80, 2633 * 80]
    assert many.epochs == 240


PLAIN = ("method.st_plusplus.plus=false", "method.st_plusplus.teacher=best")


def test_st_adds_all_images_at_once_and_may_take_the_best_network(
    drawn_root: Path, tmp_path: Path
) -> None:
    overrides = ["method=st_plusplus", *PLAIN, "optim.epochs=2", "loss=kl"]

    summary = train(tiny_config(drawn_root, *overrides), tmp_path)

    kept = torch.load(tmp_path / "checkpoints" / "supervised-best.pt", weights_only=True)
    packed = torch.load(tmp_path / "checkpoints" / "step-00000008.pt", weights_only=True)
    assert (summary.steps, summary.epochs) == (2 * 1 + 2 * 3, 4)
    assert [path.name for path in (tmp_path / "stages").iterdir()] == ["all"]
    assert len(list((tmp_path / "stages" / "all" / "masks").iterdir())) == 15
    for name, value in kept["weights"].items():
        assert torch.equal(packed["tensors"][f"network.teacher.{name}"], value)


def test_a_split_without_other_images_is_refused_before_anything_is_written(
    drawn_root: Path, tmp_path: Path
) -> None:
    config = tiny_config(drawn_root, "method=st_plusplus", "data.split=full")

    with pytest.raises(ValueError, match="learns from predictions of unlabelled images, and split"):
        train(config, tmp_path / "run")

    assert not (tmp_path / "run").exists()
