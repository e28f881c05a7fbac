"""Which classes are taken for which: row-normalised confusion matrices, drawn as tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from orchestrator.report.markup import words
from orchestrator.results import Row
from orchestrator.tables.entry_ids import named_entries, slug
from orchestrator.tables.filled import Epoch, FilledTable

MOST_CLASSES = 40  # with more, a table of pairs can no longer be read

_MISTAKES = 3  # said in words


@dataclass(frozen=True)
class Confusion:
    """The matrix of one entry of a table, over its seeds.

    Attributes:
        title: method, block and column.
        runs: number of runs whose pixels are summed.
        html: a figure with the matrix.
    """

    title: str
    runs: int
    html: str


def confusions(filled: FilledTable) -> Iterator[Confusion]:
    """A matrix of each method of each block, at the first column whose runs kept their counts."""
    heads = [" ".join(parts) for parts in zip(*filled.table.heads(), strict=True)]
    seen: set[tuple[str, str]] = set()
    for named in named_entries(filled):
        row = named.row.row
        across = filled.table.best == "across"  # methods are columns
        method = (named.block.label, heads[named.column] if across else row.label)
        found = _summed(named.entry.results, filled.epoch)
        if row.kind != "ours" or found is None or method in seen:
            continue
        seen.add(method)
        names, counts, runs = found
        parts = (row.label, named.block.label, heads[named.column])
        title = ", ".join(part for part in parts if part)
        yield Confusion(title, runs, _figure(f"confusion-{slug(named.name)}", title, names, counts))


def _summed(
    results: Sequence[Row], epoch: Epoch
) -> tuple[tuple[str, ...], NDArray[np.int64], int] | None:
    """Class names, pixels by truth and prediction, number of runs; None without any."""
    kept = [
        (row.class_names, counts)
        for row in results
        if (counts := row.best_confusion if epoch == "best" else row.last_confusion)
    ]
    names = kept[0][0] if kept else ()
    own = [np.array(counts, dtype=np.int64) for found, counts in kept if found == names]
    if not own or own[0].shape != (len(names), len(names)) or len(names) > MOST_CLASSES:
        return None
    return names, np.sum(own, axis=0), len(own)


def _figure(name: str, title: str, names: Sequence[str], counts: NDArray[np.int64]) -> str:
    totals = counts.sum(1, keepdims=True)
    parts = counts / np.maximum(totals, 1)
    head = "".join(f'<th scope="col"><span>{escape(n)}</span></th>' for n in names)
    lines = "".join(
        f'<tr><th scope="row">{escape(names[i])}</th>{"".join(map(_cell, parts[i]))}</tr>'
        for i in range(len(names))
        if totals[i, 0]
    )
    said = escape(f"{title}: true classes by predicted classes, in percent of the true class")
    return (
        f'<figure class="confusion" id="{name}"><figcaption>{words(_text(names, counts))}'
        f'</figcaption><div class="scroll" role="region" tabindex="0" aria-label="{said}">'
        f'<table aria-label="{said}"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div></figure>"
    )


def _cell(part: float) -> str:
    """A percentage on a ground as dark as it is large; next to nothing stays empty."""
    percent = round(100 * float(part))
    if percent == 0:
        return "<td></td>"
    return f'<td style="--part:{percent}%">{percent}</td>'


def _text(names: Sequence[str], counts: NDArray[np.int64]) -> str:
    """The largest mistakes in words, measured in parts of the true class."""
    wrong = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(wrong, 0.0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    found = [divmod(int(place), len(names)) for place in order if wrong.flat[place] > 0]
    if not found:
        return "No pixel is taken for another class."
    told = (f"{100 * wrong[i, j]:.0f} % of {names[i]} for {names[j]}" for i, j in found)
    return f"Taken for another class most often: {'; '.join(told)}."
