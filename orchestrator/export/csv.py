"""Rows and epochs as CSV, for spreadsheets."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets.files import atomic_write
from orchestrator.export.runs import ExportedRun
from orchestrator.results.row import HISTORY_SCHEMA, SCHEMA
from orchestrator.results.store import CONFUSIONS, Row

_COUNTS = ("key", "attempt", "epoch", "truth", "prediction", "pixels")


def export_csv(runs: Iterable[ExportedRun], folder: Path) -> list[Path]:
    """Write rows.csv, history.csv and confusion.csv: a line per run, epoch, and pair of classes.

    Returns:
        The three files.
    """
    listed = list(runs)
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in SCHEMA.names if name not in CONFUSIONS]
    rows = [{name: getattr(run.row, name) for name in names} for run in listed]
    epochs = [line for run in listed for line in run.epochs]
    counts = [line for run in listed for line in _counts(run.row)]
    paths = [folder / "rows.csv", folder / "history.csv", folder / "confusion.csv"]
    atomic_write(paths[0], _text(names, rows), durable=True)
    atomic_write(paths[1], _text(HISTORY_SCHEMA.names, epochs), durable=True)
    atomic_write(paths[2], _text(_COUNTS, counts), durable=True)
    return paths


def _counts(row: Row) -> Iterator[dict[str, Any]]:
    """A line per epoch kind, true and predicted class."""
    for epoch, counts in (("best", row.best_confusion), ("last", row.last_confusion)):
        for truth, line in zip(row.class_names, counts, strict=False):
            for prediction, pixels in zip(row.class_names, line, strict=False):
                values = (row.key, row.attempt, epoch, truth, prediction, pixels)
                yield dict(zip(_COUNTS, values, strict=True))


def _text(names: Sequence[str], lines: Iterable[dict[str, Any]]) -> str:
    """CSV with a head; lists are joined by `;`, what is missing is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(line[name]) for name in names] for line in lines)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return ";".join("" if item is None else str(item) for item in value)
    return value
