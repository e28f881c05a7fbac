"""Loader workers that the machine's shared memory cannot serve are refused before they start."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from datasets.config import DataConfig
from datasets.dataset import Dataset, open_dataset
from datasets.loading.loader import BatchPlan, batches
from datasets.loading.shared_memory import check_shared_memory, free_bytes, largest_bytes
from tests.support.tiny_config import tiny_config
from trainer.run import train

CROP, BATCH, BITS = 32, 4, 8


@pytest.fixture(scope="module")
def data(drawn_root: Path) -> tuple[Dataset, DataConfig]:
    config = replace(tiny_config(drawn_root).data, crop=CROP)
    return open_dataset(config), config


def sizes(value: object) -> int:
    """Bytes of all tensors, as they are."""
    if isinstance(value, Tensor):
        return value.nbytes
    if is_dataclass(value):
        return sum(sizes(getattr(value, item.name)) for item in fields(value))
    return sum(map(sizes, value)) if isinstance(value, tuple) else 0


def test_a_finished_batch_takes_the_bytes_of_its_views(data: tuple[Dataset, DataConfig]) -> None:
    plan = BatchPlan(batch=BATCH, stop=1, num_channel_bits=BITS)
    (step,) = batches(*data, seed=1, plan=plan)

    # An image and its int64 mask; weak and two strong views and the padding, twice; two box maps.
    pixel = (3 + 8) + 2 * (3 * 3 + 1) + 2
    assert largest_bytes(step, data[1]) == BATCH * (CROP**2 * pixel + 2 * BITS)


@pytest.mark.parametrize("change", [{}, {"scale_base": 60}, {"scales": (0.7, 1.5)}])
def test_no_batch_of_windows_takes_more_than_was_said_of_the_first(
    data: tuple[Dataset, DataConfig], change: dict[str, Any]
) -> None:
    config = replace(data[1], **change)
    plan = BatchPlan(batch=BATCH, stop=40, num_channel_bits=BITS, on_device=True)
    steps = list(batches(data[0], config, seed=1, plan=plan))
    said, taken = largest_bytes(steps[0], config), [sizes(step) for step in steps]

    assert max(taken) <= said <= 1.5 * max(taken)
    assert min(taken) < max(taken)  # they do differ


@pytest.mark.parametrize("on_device", [False, True])
def test_too_many_workers_are_refused_with_the_number_that_fits(
    data: tuple[Dataset, DataConfig], tmp_path: Path, on_device: bool
) -> None:
    plan = BatchPlan(batch=BATCH, stop=9, workers=2, on_device=on_device)

    check_shared_memory(*data, seed=1, plan=plan, ranks_here=1, shared=tmp_path)
    with pytest.raises(ValueError, match=r"Use run\.loader_workers=\d+, or give the machine more"):
        check_shared_memory(*data, seed=1, plan=plan, ranks_here=10**9, shared=tmp_path)
    with pytest.raises(ValueError, match=r"has 0 MiB free.* Use run\.loader_workers=0"):
        check_shared_memory(*data, seed=1, plan=plan, ranks_here=1, shared=tmp_path / "none")
    without = replace(plan, workers=0)
    check_shared_memory(*data, seed=1, plan=without, ranks_here=10**9, shared=tmp_path)


def test_a_run_says_so_before_it_writes(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(10**9))

    with pytest.raises(ValueError, match=f"run.loader_workers=2, {10**9} ranks here"):
        train(tiny_config(drawn_root, "run.loader_workers=2"), tmp_path / "run")

    assert list(tmp_path.iterdir()) == []
    assert free_bytes() > 0
