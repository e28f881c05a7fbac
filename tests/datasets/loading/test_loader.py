import hashlib
import multiprocessing
import random  # noqa: TID251  # to show that its state does not matter
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.config import MixSource
from datasets.dataset import open_dataset
from datasets.errors import DataError
from datasets.images.tree import ImageTree, Item, Kind
from datasets.loading.loader import BatchPlan, batches

SEED, BATCH, STEPS = 12345, 5, 4
PLAN = BatchPlan(batch=BATCH, stop=STEPS, num_channel_bits=70)


def rows(half) -> list[str]:
    """A digest per image of a batch: all its tensors and names."""
    digests = []
    for index, name in enumerate(half.ids):
        digest = hashlib.sha256(name.encode())
        for entry in fields(half):
            value = getattr(half, entry.name)
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Tensor) and part.numel():
                    digest.update(part[index].numpy().tobytes())
        digests.append(digest.hexdigest())
    return digests


def digests(stream: Iterator) -> list[list[str]]:
    """Per step, all images of both halves in slot order."""
    return [rows(labelled) + rows(unlabelled) for labelled, unlabelled in stream]


def world(dataset, config, world_size: int, **changes) -> list[list[str]]:
    """What all ranks together see, slots in order."""
    plans = [
        replace(PLAN, rank=rank, world_size=world_size, **changes) for rank in range(world_size)
    ]
    streams = [batches(dataset, config, seed=SEED, plan=plan) for plan in plans]
    steps = []
    for parts in zip(*streams, strict=True):
        halves = [[row for part in parts for row in rows(part[half])] for half in (0, 1)]
        steps.append(halves[0] + halves[1])
    return steps


@pytest.fixture(scope="module")
def straight(dataset, config) -> list[list[str]]:
    """The batches of one rank, no workers, from the start."""
    return digests(batches(dataset, config, seed=SEED, plan=PLAN))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5])
def test_ranks_share_out_the_same_batches(dataset, config, straight, world_size) -> None:
    assert world(dataset, config, world_size) == straight


@pytest.mark.parametrize("world_size", [1, 3])
def test_workers_give_the_same_bytes(dataset, config, straight, world_size) -> None:
    assert world(dataset, config, world_size, workers=2) == straight


@pytest.mark.parametrize("start", range(1, STEPS))
@pytest.mark.parametrize("workers", [0, 2])
def test_any_step_can_be_the_first(dataset, config, straight, start, workers) -> None:
    plan = replace(PLAN, start=start, workers=workers)

    assert digests(batches(dataset, config, seed=SEED, plan=plan)) == straight[start:]


@pytest.mark.parametrize("mix", list(MixSource))
def test_every_kind_of_mixing_is_the_same_in_every_world(dataset, config, mix) -> None:
    config = replace(config, mix=mix)

    assert world(dataset, config, 3) == world(dataset, config, 1)


def test_other_seeds_and_other_steps_give_other_batches(dataset, config, straight) -> None:
    other = digests(batches(dataset, config, seed=SEED + 1, plan=PLAN))
    images = [row for step in straight + other for row in step]

    assert len(set(images)) == len(images)


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_states_neither_matter_nor_move(dataset, config, straight, workers) -> None:
    random.seed(workers)
    np.random.seed(workers)  # noqa: NPY002
    torch.manual_seed(workers)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002

    stream = batches(dataset, config, seed=SEED, plan=replace(PLAN, workers=workers))

    assert digests(stream) == straight
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_supervised_batches_show_the_same_labelled_images(dataset, config) -> None:
    alone = list(batches(dataset, config, seed=SEED, plan=replace(PLAN, unlabelled=False)))
    both = list(batches(dataset, config, seed=SEED, plan=PLAN))

    assert all(unlabelled is None for _, unlabelled in alone)
    assert [rows(labelled) for labelled, _ in alone] == [rows(labelled) for labelled, _ in both]


@pytest.mark.parametrize("workers", [0, 2])
def test_masks_of_unlabelled_images_are_never_read(own_config, straight, workers) -> None:
    dataset = open_dataset(own_config)
    for name in dataset.split.unlabelled:
        dataset.tree.mask_path(name).unlink()

    stream = batches(
        open_dataset(own_config), own_config, seed=SEED, plan=replace(PLAN, workers=workers)
    )

    assert digests(stream) == straight


def test_an_iterator_closed_early_leaves_no_process(dataset, config) -> None:
    stream = batches(dataset, config, seed=SEED, plan=replace(PLAN, stop=1000, workers=2))
    next(stream)
    assert len(multiprocessing.active_children()) == 2

    stream.close()

    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_breaks_during_a_run_is_named(own_config, workers) -> None:
    dataset = open_dataset(own_config)
    shutil.rmtree(Path(own_config.root) / "JPEGImages")

    with pytest.raises(DataError, match=r"JPEGImages/scene_\d+\.jpg is missing"):
        next(batches(dataset, own_config, seed=SEED, plan=replace(PLAN, workers=workers)))


def test_uneven_shares_differ_by_at_most_one_image() -> None:
    shares = [len(replace(PLAN, rank=rank, world_size=3).positions(7)) for rank in range(3)]

    assert sorted(shares) == [1, 2, 2]


def test_a_rank_without_images_is_refused(dataset, config) -> None:
    with pytest.raises(ValueError, match=r"batch of 5 .* 6 ranks .* Raise optim\.batch"):
        batches(dataset, config, seed=SEED, plan=replace(PLAN, world_size=6))


def test_a_rank_outside_the_world_is_refused(dataset, config) -> None:
    with pytest.raises(ValueError, match="Rank 2 is not in a world of 2"):
        batches(dataset, config, seed=SEED, plan=replace(PLAN, rank=2, world_size=2))


def test_a_split_without_unlabelled_images_is_refused(own_config) -> None:
    config = replace(own_config, split="full")

    with pytest.raises(ValueError, match=r"'full' .* no unlabelled images.*method=supervised"):
        batches(open_dataset(config), config, seed=SEED, plan=PLAN)


@pytest.mark.parametrize("change", [{"crop": 0}, {"scale_min": 0.0}, {"scale_max": 0.4}])
def test_a_crop_that_cannot_be_cut_is_refused(dataset, config, change) -> None:
    with pytest.raises(ValueError, match=r"cannot be cut; data\.crop is at least 1"):
        batches(dataset, replace(config, **change), seed=SEED, plan=PLAN)


@dataclass(frozen=True)
class Listening:
    """A store that notes what is announced and what is read, in order."""

    tree: ImageTree
    notes: list[tuple[str, str]] = field(default_factory=list)

    def item(self, kind: Kind, name: str) -> Item:
        self.notes.append(("read", name))
        return self.tree.item(kind, name)

    def has(self, kind: Kind, name: str) -> bool:
        return True

    def prefetch(self, wanted: Sequence[tuple[Kind, str]]) -> None:
        self.notes.extend(("soon", name) for _, name in wanted)


@pytest.mark.parametrize("mix", list(MixSource))
def test_what_a_step_reads_was_announced_one_step_before(dataset, config, mix) -> None:
    listening = Listening(dataset.tree)
    tree = replace(dataset.tree, store=listening)
    stream = batches(replace(dataset, tree=tree), replace(config, mix=mix), seed=SEED, plan=PLAN)

    announced: set[str] = set()
    for step, _ in enumerate(stream):
        read = {name for kind, name in listening.notes if kind == "read"}
        assert step == 0 or read == announced
        announced = {name for kind, name in listening.notes if kind == "soon"}
        listening.notes.clear()
    assert announced == set()
