"""A bank is a first-in-first-out queue per class: `collections.deque` with a largest length."""

from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.support.process_groups import run_ranks
from trainer.distributed import Ranks
from trainer.methods.contrast.feature_bank import FeatureBank, NewRows, gather_images

CAPACITIES = (3, 5, 1)
BANK = FeatureBank("bank", CAPACITIES)


def empty() -> dict[str, Tensor]:
    row = torch.zeros(2, dtype=torch.float16)
    return BANK.memory(features=row, labels=torch.zeros((), dtype=torch.uint8))


def contents(memory: dict[str, Tensor]) -> list[list[tuple[float, float, int]]]:
    """The rows of each queue, the oldest first, found by the number of rows that were pushed."""
    queues, start = [], 0
    for capacity, pushed in zip(CAPACITIES, memory["bank.pushed"].tolist(), strict=True):
        numbers = range(max(0, pushed - capacity), pushed)
        slots = [start + number % capacity for number in numbers]
        pairs = zip(memory["bank.features"][slots], memory["bank.labels"][slots], strict=True)
        queues.append([(*row.tolist(), int(label)) for row, label in pairs])
        start += capacity
    return queues


def rows_of(first: int, count: int) -> dict[str, Tensor]:
    numbers = torch.arange(first, first + count)
    return {"features": torch.stack([numbers, -numbers], 1).half(), "labels": numbers.byte()}


pushes = st.lists(
    st.integers(1, 9).flatmap(
        lambda rows: st.lists(
            st.lists(st.booleans(), min_size=rows, max_size=rows), min_size=3, max_size=3
        )
    ),
    max_size=6,
)


@given(pushes)
def test_pushed_rows_are_those_of_a_deque(choices: list[list[list[bool]]]) -> None:
    memory, queues = empty(), [deque[tuple[float, float, int]](maxlen=n) for n in CAPACITIES]
    first = 0
    for choice in choices:
        chosen = torch.tensor(choice)
        new = NewRows.of(rows_of(first, chosen.shape[1]), chosen)
        for queue, is_in in zip(queues, choice, strict=True):
            queue.extend((first + i, -first - i, first + i) for i, flag in enumerate(is_in) if flag)
        expected = [list(queue) for queue in queues]
        ahead = [read(memory, new, queue, len(rows)) for queue, rows in enumerate(expected)]

        BANK.push(memory, new)

        assert contents(memory) == ahead == expected
        assert BANK.filled(memory).tolist() == [len(queue) for queue in queues]
        first += chosen.shape[1]


def read(
    memory: dict[str, Tensor], new: NewRows, queue: int, length: int
) -> list[tuple[float, float, int]]:
    """A queue as it will be, read before the push."""
    assert BANK.filled(memory, new)[queue] == length
    ages = torch.arange(length)
    places = {"queue": torch.full_like(ages, queue), "age": ages}
    features, labels = (BANK.read(memory, k, new, **places) for k in ("features", "labels"))
    return [(*row.tolist(), int(label)) for row, label in zip(features, labels, strict=True)]


def test_an_empty_queue_gives_some_row_of_the_right_shape() -> None:
    new = NewRows.of(rows_of(7, 4), torch.zeros(3, 4, dtype=torch.bool))
    place = torch.zeros(2, 3, dtype=torch.int64)

    assert BANK.read(empty(), "features", new, queue=place, age=place).shape == (2, 3, 2)


BATCH, PIXELS = 5, 4


def pushed_on_a_rank() -> dict[str, Tensor]:
    """Three pushes of five images, of which this rank holds its part."""
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    ranks = Ranks(rank, world, torch.device("cpu"))
    part = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    memory, generator = empty(), torch.Generator().manual_seed(0)
    for _ in range(3):
        features = torch.rand(BATCH, PIXELS, 2, generator=generator)
        chosen = torch.rand(BATCH, 3, PIXELS, generator=generator) < 0.2
        rows = gather_images(features[part], BATCH, ranks).flatten(0, 1)
        choice = gather_images(chosen[part], BATCH, ranks).movedim(1, 0).flatten(1)
        labels = torch.zeros(len(rows), dtype=torch.uint8)
        BANK.push(memory, NewRows.of({"features": rows, "labels": labels}, choice))
    return memory


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_bank_does_not_depend_on_the_number_of_ranks(world_size: int) -> None:
    alone = pushed_on_a_rank()

    for memory in run_ranks(pushed_on_a_rank, world_size):
        assert {k: v.tolist() for k, v in memory.items()} == {
            k: v.tolist() for k, v in alone.items()
        }
    assert alone["bank.pushed"].min() > 0
