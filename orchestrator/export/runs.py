"""The runs that every exporter writes: the rows that count, with their epochs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from orchestrator.results.counted import Today
from orchestrator.results.history import read_history
from orchestrator.results.store import Row, counted_rows
from orchestrator.storage.root import Root
from sweeps.cell import Cell

# Numbers of an epoch, under the names of the history's columns.
EPOCH_VALUES = (
    "miou_percent",
    "mask_ratio",
    "loss_total",
    "loss_labelled",
    "loss_strong",
    "loss_features",
    "loss_inter_pixel",
    "lr",
)


@dataclass(frozen=True)
class ExportedRun:
    """A row with the epochs of its attempt, oldest first."""

    row: Row
    epochs: tuple[dict[str, Any], ...]

    def values(self) -> Iterator[tuple[str, int, float]]:
        """Name, epoch and number of everything that was measured."""
        for line in self.epochs:
            for name in EPOCH_VALUES:
                if line[name] is not None:
                    yield name, line["epoch"], line[name]


def exported_runs(
    root: Root, cells: Iterable[Cell], today: Mapping[str, Today]
) -> list[ExportedRun]:
    """The runs that count of these cells, at any seed; `today` as for `counted`.

    Raises:
        ResultsError: a file among the results is broken.
    """
    cells = list(cells)
    rows = counted_rows(root, cells, today, per_class=True)
    epochs = _epochs(read_history(root, cells), {row.key: row.attempt for row in rows})
    return [ExportedRun(row, tuple(epochs.get(row.key, ()))) for row in rows]


def _epochs(history: pa.Table, attempts: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    epochs: dict[str, list[dict[str, Any]]] = {}
    for line in history.to_pylist():
        if attempts.get(line["key"]) == line["attempt"]:
            epochs.setdefault(line["key"], []).append(line)
    return epochs
