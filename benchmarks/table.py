"""What the benchmarks share: settings, rounds in turn, a table with ratios and their spread."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class Column:
    """One variant and its figures, one a round."""

    name: str
    values: list[float] = field(default_factory=list)


def settings(words: Sequence[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """key=value words over defaults.

    Raises:
        SystemExit: a word is none of them; says which there are.
    """
    given = dict(defaults)
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or key not in defaults:
            known = ", ".join(f"{name}={value}" for name, value in defaults.items())
            raise SystemExit(f"{word!r} is no setting here; known: {known}.")
        given[key] = value
    return given


def in_turn(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, device: str = "cpu"
) -> list[Column]:
    """Seconds of each variant, interleaved; the first round warms up and does not count.

    CPU time of this process for a CPU, seconds until the device is done for CUDA.
    """
    columns = [Column(name) for name in variants]
    for number in range(rounds + 1):
        for column, call in zip(columns, variants.values(), strict=True):
            taken = seconds(call, device)
            if number:
                column.values.append(taken)
    return columns


def seconds(call: Callable[[], object], device: str) -> float:
    """What one call takes."""
    if device == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def print_table(title: str, columns: Sequence[Column], *, digits: int = 1) -> None:
    """Milliseconds, and how often each goes into the first, median with smallest and largest."""
    print(f"\n{title}\n\n| | ms | ratio to the first |\n|---|---|---|")
    first = columns[0].values
    for column in columns:
        ratios = [a / b for a, b in zip(first, column.values, strict=True)]
        print(
            f"| {column.name} | {1e3 * statistics.median(column.values):.{digits}f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
