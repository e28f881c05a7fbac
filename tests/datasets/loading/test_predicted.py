"""Batches of true and predicted masks together, as self-training takes them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from datasets.dataset import Dataset, open_dataset
from datasets.errors import DataError
from datasets.images.predicted import PredictedMasks
from datasets.loading.batches import LabelledBatch, ViewPlan
from datasets.loading.device import labelled_batch
from datasets.loading.loader import BatchPlan, batches
from tests.support.tiny_config import tiny_config

VIEWS = ViewPlan(
    strong=0,
    boxes=0,
    has_partner=False,
    has_holes=True,
    labelled_strong=True,
    channel_bits=False,
)
CLASS = 4  # of every pixel of the predicted masks


@pytest.fixture
def mixed(drawn_root: Path, tmp_path: Path) -> Dataset:
    """Five labelled images, twice, and the first six others with a mask of one class."""
    dataset = open_dataset(tiny_config(drawn_root).data)
    paths = {name: tmp_path / f"{name}.png" for name in dataset.split.unlabelled[:6]}
    for name, path in paths.items():
        Image.new("L", dataset.tree.image(name).size, CLASS).save(path)
    return replace(dataset, predicted=PredictedMasks(dataset.num_classes, 2, paths))


def made(dataset: Dataset, *, stop: int = 8, **facts: object) -> list[LabelledBatch]:
    config = tiny_config(dataset.tree.root).data
    plan = BatchPlan(batch=8, stop=stop, unlabelled=False, views=VIEWS, **facts)
    return [labelled_batch(first) for first, _ in batches(dataset, config, seed=3, plan=plan)]


def test_only_images_with_predicted_masks_are_jittered_and_cut_out(mixed: Dataset) -> None:
    holes = jittered = 0
    for batch in made(mixed):
        for row, name in enumerate(batch.ids):
            weak, strong, mask = batch.images[row], batch.strong[row], batch.masks[row]
            if name in mixed.split.labelled:
                assert not batch.is_predicted[row]
                assert torch.equal(weak, strong)
                continue
            assert batch.is_predicted[row]
            shown = (weak > 0).any(0)  # padding is black
            hole = (mask == 255) & shown
            assert set(mask.unique().tolist()) <= {CLASS, 255}
            holes += bool(hole.any())
            jittered += not torch.equal(weak[:, ~hole], strong[:, ~hole])

    predicted = sum(int(batch.is_predicted.sum()) for batch in made(mixed))
    assert 0.25 < holes / predicted < 0.75
    assert jittered / predicted > 0.6


def test_an_epoch_has_labelled_images_as_often_as_was_asked_and_others_once(mixed: Dataset) -> None:
    ids = Counter(name for batch in made(mixed, stop=2) for name in batch.ids)

    assert ids == dict.fromkeys(mixed.split.labelled, 2) | dict.fromkeys(mixed.predicted.paths, 1)


def test_device_and_workers_make_the_bytes_of_the_host(mixed: Dataset) -> None:
    expected = made(mixed)

    for facts in ({"on_device": True}, {"workers": 2}, {"start": 3, "on_device": True}):
        found = made(mixed, **facts)

        for one, other in zip(expected[-len(found) :], found, strict=True):
            assert one.ids == other.ids
            for name in ("images", "masks", "strong", "is_predicted"):
                assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_a_mask_of_another_size_or_a_missing_one_is_refused(mixed: Dataset) -> None:
    paths = list(mixed.predicted.paths.values())
    for path in paths:
        Image.new("L", (9, 8), CLASS).save(path)
    with pytest.raises(DataError, match=r"is 9x8 pixels, its image is 48x40\. Remove the mask"):
        made(mixed)

    for path in paths:
        path.unlink()
    with pytest.raises(DataError, match=r"The predicted mask .* is missing"):
        made(mixed)
