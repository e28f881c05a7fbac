"""Which classes are taken for which: confusion matrices in percent of the true class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.row import Row
from orchestrator.tables.filled import Epoch, FilledTable
from orchestrator.tables.text import named_entries, slug

MOST_CLASSES = 40  # with more, a table of pairs can no longer be read

_MISTAKES = 3  # named in the text

Counts = NDArray[np.int64]  # pixels by true and predicted class, (C, C)


@dataclass(frozen=True)
class ConfusionMatrix:
    """The matrix of one entry of a table, over its seeds.

    Attributes:
        name: its id in the page.
        title: method, block and column.
        runs: number of runs whose pixels are summed.
        text: the largest mistakes in words.
        class_names: of the columns.
        lines: name and whole percentages of each true class that has pixels.
    """

    name: str
    title: str
    runs: int
    text: str
    class_names: tuple[str, ...]
    lines: tuple[tuple[str, tuple[int, ...]], ...]


def confusion_matrices(filled: FilledTable) -> Iterator[ConfusionMatrix]:
    """A matrix of each method of each block, at the first column whose runs kept their counts."""
    heads = [" ".join(parts) for parts in zip(*filled.table.heads(), strict=True)]
    seen: set[tuple[str, str]] = set()
    for named in named_entries(filled):
        row = named.row.row
        across = filled.table.best == "across"  # methods are columns
        method = (named.block.label, heads[named.column] if across else row.label)
        summed = _summed(named.entry.results, filled.epoch)
        if row.kind != "ours" or summed is None or method in seen:
            continue
        seen.add(method)
        names, counts, runs = summed
        parts = (row.label, named.block.label, heads[named.column])
        title = ", ".join(part for part in parts if part)
        yield ConfusionMatrix(
            name=f"confusion-{slug(named.name)}",
            title=title,
            runs=runs,
            text=_text(names, counts),
            class_names=names,
            lines=tuple(_lines(names, counts)),
        )


def _summed(results: Sequence[Row], epoch: Epoch) -> tuple[tuple[str, ...], Counts, int] | None:
    """Class names, pixels by truth and prediction, number of runs; None without any."""
    kept = [
        (row.class_names, counts)
        for row in results
        if (counts := row.best_confusion if epoch == "best" else row.last_confusion)
    ]
    names = kept[0][0] if kept else ()
    own = [np.array(counts, dtype=np.int64) for others, counts in kept if others == names]
    if not own or own[0].shape != (len(names), len(names)) or len(names) > MOST_CLASSES:
        return None
    return names, np.sum(own, axis=0), len(own)


def _lines(names: Sequence[str], counts: Counts) -> Iterator[tuple[str, tuple[int, ...]]]:
    totals = counts.sum(1)
    for name, line, total in zip(names, counts, totals, strict=True):
        if total:
            yield name, tuple(round(100 * float(pixels / total)) for pixels in line)


def _text(names: Sequence[str], counts: Counts) -> str:
    """The largest mistakes in words, measured in parts of the true class."""
    wrong = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(wrong, 0.0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    largest = [divmod(int(index), len(names)) for index in order if wrong.flat[index] > 0]
    if not largest:
        return "No pixel is taken for another class."
    mistakes = (f"{100 * wrong[i, j]:.0f} % of {names[i]} for {names[j]}" for i, j in largest)
    return f"Taken for another class most often: {'; '.join(mistakes)}."
