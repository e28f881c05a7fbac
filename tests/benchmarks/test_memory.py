"""The count of memory: by hand, against the committed table, and from rung to rung."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.memory import LiveBytes, configured, fitted, peak_bytes
from orchestrator.planning.memory import step_bytes
from trainer.config.schema import Memory, PixelDistance, Precision


def test_a_storage_counts_while_it_lives_and_once() -> None:
    with FakeTensorMode(), LiveBytes() as live:
        x = torch.empty(1000, requires_grad=True)
        y = x.exp()  # kept for the backward pass, also without the name
        total = y.view(10, 100).sum()
        del y
        assert live.now == 4000 + 4000 + 4
        total.backward()
        del total
        assert live.now == 4000 + 4000  # x and its gradient

    assert live.peak >= 3 * 4000


@pytest.mark.long
def test_fresh_counts_are_those_of_the_committed_table_and_fall_from_rung_to_rung() -> None:
    kind = ("resnet50", "supervised", PixelDistance.none, Precision.fp32)
    configs = [configured(*kind, memory) for memory in Memory]
    configs = [replace(config, data=replace(config.data, crop=513)) for config in configs]

    counted = [peak_bytes(config, classes=19, images=3) for config in configs]

    full, recompute, offload = counted
    assert offload < recompute < 0.5 * full
    table = [step_bytes(config, classes=19, images=3) for config in configs]
    assert table == pytest.approx(counted, rel=0.02)


def test_banks_grow_with_the_classes_and_not_with_the_pixels() -> None:
    line = fitted(
        configured("resnet8", "u2pl", PixelDistance.none, Precision.fp32, Memory.full),
        points=((33, 2, 4), (65, 2, 4), (33, 2, 9)),
    )

    rows, channels, half = 30_000, 8, 2
    assert line.memory_per_class == pytest.approx(rows * channels * half, rel=1e-3)
    assert line.per_class < 1000  # of a pixel
    wide, narrow = (line.bytes(pixels=0, classes=count, networks=1) for count in (150, 21))
    assert wide - narrow == pytest.approx(129 * line.memory_per_class)


def test_a_network_that_the_table_lacks_can_be_counted() -> None:
    kind = ("efficientnet_lite0", "supervised", PixelDistance.none, Precision.fp32)
    configs = [configured(*kind, memory) for memory in (Memory.full, Memory.recompute)]
    configs = [replace(config, data=replace(config.data, crop=129)) for config in configs]

    full, recompute = (peak_bytes(config, classes=6, images=4) for config in configs)

    assert recompute < 0.6 * full
    assert step_bytes(configs[0], classes=6, images=4) is None
