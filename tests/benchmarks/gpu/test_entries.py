"""A row of the table, and the reasons for which one stays empty."""

import time

import pytest
import torch

from benchmarks.gpu.entries import Entry, Line, lacks_cards, lacks_precision, rows
from trainer.config.schema import Precision


def printed(*entries: Entry, seconds: float = 600.0) -> list[str]:
    _, *lines = rows(entries, until=time.monotonic() + seconds)
    return lines


def test_a_row_has_the_median_the_range_the_rate_and_the_memory() -> None:
    line = Line("fine", (0.1, 0.4, 0.2), images=8, memory=3 * 2**29)

    assert line.row("step") == "| step | 200.0 | 100.0 to 400.0 | 40.0 | 1.50 | fine |"


def test_what_a_machine_lacks_is_not_tried() -> None:
    def never() -> Line:
        raise AssertionError("it was tried")

    assert printed(Entry("a", never, "no card")) == ["| a |  |  |  |  | left out: no card |"]


def test_what_no_time_is_left_for_is_said() -> None:
    assert printed(Entry("a", Line), seconds=-1.0) == ["| a |  |  |  |  | left out: no time |"]


def test_an_entry_that_does_not_fit_leaves_the_others_alone() -> None:
    def too_large() -> Line:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    rows_ = printed(Entry("a", too_large), Entry("b", lambda: Line("fine")))

    assert rows_ == [
        "| a |  |  |  |  | left out: CUDA out of memory |",
        "| b |  |  |  |  | fine |",
    ]


def test_an_entry_that_torch_refuses_leaves_the_others_alone() -> None:
    def refused() -> Line:
        raise RuntimeError("bincount does not have a\ndeterministic implementation")

    rows_ = printed(Entry("a", refused), Entry("b", lambda: Line("fine")))

    text = "failed: bincount does not have a deterministic implementation"
    assert rows_ == [f"| a |  |  |  |  | {text} |", "| b |  |  |  |  | fine |"]


@pytest.mark.parametrize(
    ("precision", "capability", "reason"),
    [
        (Precision.fp32, (7, 5), ""),
        (Precision.tf32, (7, 5), "tf32 needs compute capability 8.0, this card has 7.5"),
        (Precision.bf16, (7, 5), "bf16 needs compute capability 8.0, this card has 7.5"),
        (Precision.bf16, (9, 0), ""),
        (Precision.bf16, None, ""),
    ],
)
def test_older_cards_have_float32_alone(
    precision: Precision, capability: tuple[int, int] | None, reason: str
) -> None:
    assert lacks_precision(precision, capability) == reason


@pytest.mark.parametrize(
    ("wanted", "cards", "batch", "reason"),
    [
        (2, 2, 4, ""),
        (2, 1, 4, "2 ranks need 2 cards, here is 1"),
        (4, 3, 4, "4 ranks need 4 cards, here are 3"),
        (4, 8, 2, "4 ranks cannot share a batch of 2"),
    ],
)
def test_ranks_need_a_card_and_an_image_each(
    wanted: int, cards: int, batch: int, reason: str
) -> None:
    assert lacks_cards(wanted, cards, batch=batch) == reason
