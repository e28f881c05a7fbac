"""Which images a run is fed; copies to the device and back to the host."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from datasets.dataset import open_dataset
from datasets.loading.batches import LabelledBatch
from tests.support.tiny_config import tiny_config
from trainer.checkpoint import Snapshot
from trainer.config.fingerprint import fingerprint
from trainer.config.schema import Augment
from trainer.determinism import digest
from trainer.distributed import Ranks
from trainer.feed import (
    SideStream,
    augments_on_device,
    batch_plan,
    cache_folder,
    feed,
    map_tensors,
    one_ahead,
    to_device,
)
from trainer.run import train
from trainer.schedule import steps_per_epoch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def test_an_epoch_that_is_longer_than_its_list_fills_every_batch(drawn_root: Path) -> None:
    config = tiny_config(drawn_root, "method=fixmatch")  # 15 unlabelled images, two steps of 8
    dataset = open_dataset(config.data)
    per_epoch = steps_per_epoch(config, num_labelled=5, num_unlabelled=15)
    alone, steps = Ranks(0, 1, torch.device("cpu")), range(4 * per_epoch)

    plan = batch_plan(config, alone, steps=steps, num_channel_bits=0)
    fed = list(feed(config, dataset, alone, plan))

    assert per_epoch == 2
    for half in (0, 1):  # labelled, unlabelled
        assert [len(step[half].ids) for step in fed] == [8] * 8
        often = Counter(name for step in fed for name in step[half].ids)
        assert len(often) == (5, 15)[half]
        assert max(often.values()) - min(often.values()) <= 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_makes_the_batches_of_the_host(drawn_root: Path, device: str) -> None:
    def digests(augment: str, device: str) -> list[str]:
        config = tiny_config(drawn_root, f"run.augment={augment}")
        ranks, steps = Ranks(0, 1, torch.device(device)), range(3)
        dataset = open_dataset(config.data)
        plan = batch_plan(config, ranks, steps=steps, num_channel_bits=8)
        fed = feed(config, dataset, ranks, plan)
        return [digest(tensors_in(batch)) for batch in fed]

    made = digests("device", device)

    assert made == digests("host", "cpu")
    assert len(set(made)) == 3


def tensors_in(batch: object) -> dict[str, torch.Tensor]:
    found: list[torch.Tensor] = []
    map_tensors(batch, lambda tensor: found.append(tensor) or tensor)
    return {str(number): tensor for number, tensor in enumerate(found)}


def test_a_batch_is_launched_before_the_step_of_the_one_before() -> None:
    happened: list[str] = []

    def finish(number: int) -> int:
        happened.append(f"batch {number}")
        return 10 * number

    for made in one_ahead(range(3), finish, SideStream(None)):
        happened.append(f"step {made}")

    assert happened == ["batch 0", "batch 1", "step 0", "batch 2", "step 10", "step 20"]
    assert list(one_ahead([], finish, SideStream(None))) == []


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_arrives_as_it_was(device: str) -> None:
    image, mask = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2), torch.ones(1, 2, 2).long()
    batch = LabelledBatch(image, mask, torch.ones(1, 4, dtype=torch.bool), ("a",))

    arrived = to_device(batch, torch.device(device))

    assert {x.device.type for x in (arrived.images, arrived.masks, arrived.keep)} == {device}
    assert torch.equal(arrived.images.cpu(), image)
    assert arrived.ids == ("a",)
    assert torch.equal(to_device(mask, torch.device(device)).cpu(), mask)


@pytest.mark.parametrize("device", DEVICES)
def test_a_snapshot_does_not_follow_the_weights_and_keeps_its_memory(device: str) -> None:
    weight = torch.ones(3, 2, device=device)
    snapshot, packed = Snapshot(), {"step": 1, "tensors": {"weight": weight}}

    first = snapshot.of(packed)()["tensors"]["weight"]
    weight.add_(1.0)

    assert first.device.type == "cpu"
    assert torch.equal(first, torch.ones(3, 2))
    again = snapshot.of(packed)()["tensors"]["weight"]
    assert again is first
    assert torch.equal(again, torch.full((3, 2), 2.0))


def test_a_snapshot_keeps_the_layout_of_its_tensors() -> None:
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)

    copied = Snapshot().of({"weight": weight})()["weight"]

    assert copied.stride() == weight.stride()
    assert torch.equal(copied, weight)


def test_neither_the_device_s_augmentation_nor_the_cache_changes_a_bit(
    drawn_root: Path, tmp_path: Path
) -> None:
    def weights(name: str, *overrides: str) -> str | None:
        config = tiny_config(drawn_root, "loss=kl", "optim.epochs=2", *overrides)
        return train(config, tmp_path / name).weights_sha256

    expected = weights("host", "run.augment=host")

    cache = ["run.cache=decoded", f"run.cache_folder={tmp_path / 'cache'}"]
    assert weights("device", "run.augment=device") == expected
    assert weights("cached", *cache) == expected
    assert weights("both", "run.augment=device", "run.loader_workers=2", *cache) == expected


@pytest.mark.parametrize(
    ("augment", "device", "expected"),
    [
        (Augment.auto, "cpu", False),
        (Augment.auto, "cuda", True),
        (Augment.host, "cuda", False),
        (Augment.device, "cpu", True),
    ],
)
def test_only_a_card_augments_by_itself(augment: Augment, device: str, expected: bool) -> None:
    assert augments_on_device(augment, device) is expected


def test_how_batches_are_made_is_no_part_of_the_fingerprint(drawn_root: Path) -> None:
    plain = tiny_config(drawn_root)
    other = tiny_config(drawn_root, "run.augment=device", "run.cache=decoded")

    assert fingerprint(plain) == fingerprint(other)


def test_the_cache_lies_beside_the_dataset(drawn_root: Path) -> None:
    assert cache_folder(tiny_config(drawn_root)) == drawn_root.with_name("drawn.decoded")
    assert cache_folder(tiny_config(drawn_root, "run.cache_folder=/x")) == Path("/x")
