"""Per-epoch history of published attempts: ``<root>/results/history/<key>.a0001.parquet``.

Made from the metrics.jsonl that the trainer writes, so that learning curves outlive run folders.
"""

import json
from collections.abc import Iterable
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.results.arrow import leave_out_pandas
from orchestrator.results.files import Single, first_of, groups_of, read_set
from orchestrator.results.row import HISTORY_SCHEMA, SCHEMA_VERSION
from orchestrator.storage.root import Root
from sweeps.cell import Cell
from trainer.run_log import METRICS

_PLACE = ("step", "epoch", "lr", "miou_percent", "iou_percent")
_RENAMED = {"loss": "loss_total"}  # `loss` is an axis of the cell


def publish_history(root: Root, key: str, attempt: int, run_folder: Path) -> str | None:
    """Publish the epochs of a run, before its row, so that a row never lacks them.

    Args:
        root: under which the results lie.
        key: of the cell.
        attempt: under which the row will be published.
        run_folder: holds metrics.jsonl.

    Returns:
        Path or URL of the file; None where the run logged nothing.

    Raises:
        OSError: the folder cannot be written; nothing half-written is left.
    """
    rows = run_history(run_folder)
    if not rows:
        return None
    leave_out_pandas()
    fixed = {"key": key, "attempt": attempt, "schema_version": SCHEMA_VERSION}
    table = pa.Table.from_pylist([row | fixed for row in rows], HISTORY_SCHEMA)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    folder = root.results("history")
    name = Single(key, attempt, is_failed=False).name
    folder.put(name, buffer.getvalue().to_pybytes())
    return f"{folder.address}/{name}"


def read_history(root: Root, cells: Iterable[Cell] | None = None) -> pa.Table:
    """The epochs of every published attempt, ordered by key, attempt and epoch.

    Args:
        root: of the results.
        cells: whose epochs must be readable, at any seed; None needs all.

    Raises:
        ResultsError: a file is broken or of a newer schema.
    """
    groups = None if cells is None else groups_of(cells)
    return read_set(root.results("history"), HISTORY_SCHEMA, unique_history, groups)


def run_history(run_folder: Path) -> list[dict[str, Any]]:
    """One row per epoch from a run's own folder; empty where it logged nothing."""
    return history_of(metric_lines(run_folder))


def metric_lines(run_folder: Path) -> list[dict[str, Any]]:
    """What a run logged, line by line; a line that a crash cut short is left out."""
    path = run_folder / METRICS
    return list(_lines(path.read_text())) if path.exists() else []


def unique_history(table: pa.Table) -> pa.Table:
    """Each epoch once, by key, attempt and epoch."""
    return first_of(table, ("key", "attempt", "epoch"), num_key=3)


def history_of(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per epoch from the lines of metrics.jsonl, oldest first."""
    epochs: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        # Steps have fractions of epochs: 1.25 is in the second one, 2.0 is its end.
        epochs.setdefault(ceil(line["epoch"] - 1e-9), []).append(line)
    return [_epoch(number, epochs[number]) for number in sorted(epochs)]


def _epoch(number: int, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of one epoch: scores as they are, terms as means over its logged steps."""
    terms: dict[str, list[float]] = {}
    row: dict[str, Any] = {"epoch": number, "step": max(line["step"] for line in lines)}
    for line in lines:
        row |= {name: line[name] for name in _PLACE[2:] if name in line}
        for name, value in line.items():
            if name not in _PLACE and isinstance(value, int | float):
                terms.setdefault(_RENAMED.get(name, name), []).append(float(value))
    means = {name: fmean(values) for name, values in terms.items()}
    known = {name: value for name, value in means.items() if name in HISTORY_SCHEMA.names}
    others = {name: value for name, value in means.items() if name not in known}
    row["other_terms_json"] = json.dumps(others, sort_keys=True) if others else None
    return row | known


def _lines(text: str) -> Iterable[dict[str, Any]]:
    for line in text.splitlines():
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if isinstance(facts, dict) and {"step", "epoch"} <= facts.keys():
            yield facts
