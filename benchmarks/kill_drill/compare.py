"""What a disturbed grid has in its results that an undisturbed one has not, or the reverse."""

import csv
import re
from dataclasses import fields
from typing import Any

import pyarrow.compute as pc

from orchestrator.results.counted import counted
from orchestrator.results.history import read_history
from orchestrator.results.row import Row
from orchestrator.results.store import read_rows
from orchestrator.storage.root import Root
from tests.support.lab import Lab

# What may differ: which attempt it was, when, where and by which back end.
_FREE = {"attempt", "started", "finished", "seconds", "gpu_seconds", "peak_memory_bytes"}
_FREE |= {"host", "backend", "ray"}


def differences(calm: Lab, rough: Lab) -> list[str]:
    """One line for each difference between the results of two labs with the same grid.

    Compared are the rows with both weights and the IoU of each class, the history of every epoch,
    and every printed table, letter for letter; a cell must have exactly one done row.
    """
    before, after = _done_rows(calm), _done_rows(rough)
    lines = [f"{key} has {len(rows)} done rows" for key, rows in after.items() if len(rows) != 1]
    lines += [f"{key} is lost" for key in before.keys() - after.keys()]
    for key in before.keys() & after.keys():
        lines += _different_columns(before[key][0], after[key][0])
        lines += _different_epochs(calm.opened, rough.opened, (before[key][0], after[key][0]))
    return lines + _different_tables(calm, rough)


def _done_rows(lab: Lab) -> dict[str, list[Row]]:
    """The done rows of each cell, the one that counts first."""
    rows = [row for row in read_rows(lab.opened) if row.status == "done"]
    first = counted(rows, {})
    return {key: [row, *(r for r in rows if r.key == key and r is not row)]
            for key, row in first.items()}  # fmt: skip


def _different_columns(calm: Row, rough: Row) -> list[str]:
    names = [item.name for item in fields(Row) if item.name not in _FREE]
    pairs = [(name, getattr(calm, name), getattr(rough, name)) for name in names]
    return [f"{calm.key}: {name} is {is_}, was {was}" for name, was, is_ in pairs if was != is_]


def _different_epochs(calm: Root, rough: Root, rows: tuple[Row, Row]) -> list[str]:
    was, is_ = (_epochs(root, row) for root, row in zip((calm, rough), rows, strict=True))
    return [] if was == is_ else [f"{rows[0].key}: history is {is_}, was {was}"]


def _epochs(root: Root, row: Row) -> list[dict[str, Any]]:
    table = read_history(root)
    of_row = pc.and_(pc.equal(table["key"], row.key), pc.equal(table["attempt"], row.attempt))
    return table.filter(of_row).drop_columns("attempt").to_pylist()


def _different_tables(calm: Lab, rough: Lab) -> list[str]:
    was, is_ = _tables(calm), _tables(rough)
    names = sorted(was.keys() | is_.keys())
    return [f"table {name} differs" for name in names if was.get(name) != is_.get(name)]


def _tables(lab: Lab) -> dict[str, str]:
    """Text of every printed file, without the numbers of attempts."""
    lab.run("tables")
    files = sorted(lab.opened.tables(lab.grid.stem).iterdir())
    texts = {path.name: re.sub(r"\.a\d{4}", "", path.read_text()) for path in files}
    name = f"{lab.grid.stem}.csv"
    lines = [{**line, "attempts": ""} for line in csv.DictReader(texts[name].splitlines())]
    return {**texts, name: str(lines)}
