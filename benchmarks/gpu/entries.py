"""One table of entries, each measured, or left out with a reason."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from trainer.config.schema import Precision

Capability = tuple[int, int]
FAILED = "failed: "  # the remark of an entry that should have been measured


@dataclass(frozen=True)
class Line:
    """What was measured; a value that is empty or 0 leaves its column empty.

    Attributes:
        remark: in words.
        seconds: of each call.
        images: that one call takes.
        memory: most bytes that the device held.
    """

    remark: str = ""
    seconds: tuple[float, ...] = ()
    images: int = 0
    memory: int = 0

    def row(self, name: str) -> str:
        """The line in Markdown."""
        middle = statistics.median(self.seconds) if self.seconds else 0.0
        columns = (
            name,
            f"{1e3 * middle:.1f}" if middle else "",
            f"{1e3 * min(self.seconds):.1f} to {1e3 * max(self.seconds):.1f}" if middle else "",
            f"{self.images / middle:.1f}" if middle and self.images else "",
            f"{self.memory / 2**30:.2f}" if self.memory else "",
            self.remark,
        )
        return f"| {' | '.join(columns)} |"


HEADER = "| | ms | smallest to largest | images/s | peak GiB | |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Entry:
    """A line still to be measured.

    Attributes:
        lacks: what this machine does not have for it; empty where nothing is missing.
    """

    name: str
    measure: Callable[[], Line]
    lacks: str = ""


def rows(entries: Iterable[Entry], *, until: float) -> Iterator[str]:
    """The rows of the table in Markdown, each as soon as it is known.

    Args:
        entries: in their order.
        until: on the monotonic clock; an entry that has not begun by then is left out.
    """
    yield HEADER
    for entry in entries:
        if entry.lacks:
            line = Line(f"left out: {entry.lacks}")
        elif time.monotonic() > until:
            line = Line("left out: no time")
        else:
            line = _measured(entry)
        yield line.row(entry.name)


def _measured(entry: Entry) -> Line:
    """The line of an entry; one that torch cannot compute here says why, and others go on."""
    if torch.cuda.is_initialized():  # give back what earlier entries left, and count from here
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        return entry.measure()
    except torch.OutOfMemoryError as error:
        return Line(f"left out: {str(error).partition('. ')[0]}")
    except RuntimeError as error:
        return Line(f"{FAILED}{' '.join(str(error).split())}")


def lacks_precision(precision: Precision, capability: Capability | None) -> str:
    """Why a card cannot compute so; empty where it can, as every CPU does (None)."""
    if precision is Precision.fp32 or capability is None or capability >= (8, 0):
        return ""
    major, minor = capability
    return f"{precision.value} needs compute capability 8.0, this card has {major}.{minor}"


def lacks_cards(wanted: int, cards: int, *, batch: int) -> str:
    """Why so many ranks cannot train here; empty where they can."""
    if cards < wanted:
        return f"{wanted} ranks need {wanted} cards, here {'is' if cards == 1 else 'are'} {cards}"
    if batch < wanted:
        return f"{wanted} ranks cannot share a batch of {batch}"
    return ""


def peak_memory(device: torch.device) -> int:
    """Most bytes that torch held on the device since the entry began; 0 for a CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0
