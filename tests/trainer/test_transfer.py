"""Copies to the device and back to the host."""

import pytest
import torch

from datasets.loading.batches import LabelledBatch
from trainer.checkpoint import Snapshot
from trainer.feed import sent

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_arrives_as_it_was(device: str) -> None:
    image, mask = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2), torch.ones(1, 2, 2).long()
    batch = LabelledBatch(image, mask, torch.ones(1, 4, dtype=torch.bool), ("a",))

    arrived = sent(batch, torch.device(device))

    assert {x.device.type for x in (arrived.images, arrived.masks, arrived.keep)} == {device}
    assert torch.equal(arrived.images.cpu(), image)
    assert arrived.ids == ("a",)
    assert torch.equal(sent(mask, torch.device(device)).cpu(), mask)


@pytest.mark.parametrize("device", DEVICES)
def test_a_snapshot_does_not_follow_the_weights_and_keeps_its_memory(device: str) -> None:
    weight = torch.ones(3, 2, device=device)
    snapshot, packed = Snapshot(), {"step": 1, "tensors": {"weight": weight}}

    first = snapshot.of(packed)["tensors"]["weight"]
    weight.add_(1.0)

    assert first.device.type == "cpu"
    assert torch.equal(first, torch.ones(3, 2))
    again = snapshot.of(packed)["tensors"]["weight"]
    assert again is first
    assert torch.equal(again, torch.full((3, 2), 2.0))


def test_a_snapshot_keeps_the_layout_of_its_tensors() -> None:
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)

    copied = Snapshot().of({"weight": weight})["weight"]

    assert copied.stride() == weight.stride()
    assert torch.equal(copied, weight)
