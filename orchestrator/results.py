"""Results as Parquet: one file per finished attempt of a cell, readable by any tool as it lies.

``<root>/results/rows/<key>.a0001.parquet`` is the place; root is a folder or a URL of fsspec
(s3://bucket/prefix). `orchestrator.compaction` may put many rows into one file beside them. Needs
neither torch nor ray.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.result_files import RowFolder, open_folder
from orchestrator.result_schema import SCHEMA, SCHEMA_VERSION
from orchestrator.result_sets import (
    COMPACTED,
    ResultsError,
    Single,
    first_of,
    parse_all,
    parse_name,
    read_set,
    stable_contents,
)
from sweeps.cell import Cell

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PER_CLASS = ("best_iou_percent", "last_iou_percent", "class_names")

__all__ = [
    "PER_CLASS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "ResultsError",
    "Row",
    "StaleAttempt",
    "cell_rows",
    "counted",
    "counted_rows",
    "publish",
    "read_rows",
    "read_table",
    "rows_of",
]


class StaleAttempt(RuntimeError):
    """A newer attempt of the same cell has already published its row."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One finished attempt; only one row per cell counts, see `counted`."""

    recipe: str
    split: str
    backbone: str
    crop: int
    method: str
    loss: str
    seed: int
    attempt: int  # counted from 1 over all starts of the cell
    status: Literal["done", "failed"]
    fingerprint: str  # sha256 of everything that can move the numbers
    config_json: str  # the whole resolved configuration
    started: datetime  # UTC
    finished: datetime  # UTC
    error_class: str | None = None  # of a failed attempt
    error_text: str | None = None
    best_miou_percent: float | None = None  # over the whole validation set
    best_epoch: int | None = None
    last_miou_percent: float | None = None
    last_epoch: int | None = None
    best_iou_percent: tuple[float | None, ...] = ()  # per class; None where a class never occurs
    last_iou_percent: tuple[float | None, ...] = ()
    class_names: tuple[str, ...] = ()
    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None  # of training, summed over attempts
    gpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    weights_sha256: str | None = None  # of the last epoch
    best_weights_sha256: str | None = None
    data_fingerprint: str | None = None
    split_checksum: str | None = None
    pretrained_sha256: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    python: str | None = None
    torch: str | None = None
    cuda: str | None = None
    ray: str | None = None
    device: str | None = None
    world_size: int | None = None
    host: str | None = None
    backend: str | None = None
    schema_version: int = SCHEMA_VERSION

    @cached_property
    def cell(self) -> Cell:
        """The cell this row belongs to."""
        return Cell(
            recipe=self.recipe,
            split=self.split,
            backbone=self.backbone,
            crop=self.crop,
            method=self.method,
            loss=self.loss,
            seed=self.seed,
        )

    @cached_property
    def key(self) -> str:
        """Key of the cell; stored as a column as well."""
        return self.cell.key

    @property
    def place(self) -> str:
        """The key without the seed: rows of one place are repetitions."""
        return self.key.rpartition(".s")[0]


def publish(root: str, row: Row) -> str:
    """Make a finished attempt part of the results, whole or not at all.

    The first row of an attempt stays, so that publishing twice is harmless; only a done row
    replaces a failed one (a controller may give a run up just as it finishes).

    Args:
        root: folder or fsspec URL under which runs and results live.
        row: what to publish.

    Returns:
        The path or URL of the row's file.

    Raises:
        StaleAttempt: a newer attempt of the cell has published already.
        OSError: the place cannot be written (full disk, rights); nothing half-written is left.
    """
    folder = open_folder(root)
    known = _attempts(folder, row.key)
    newest = max(known, default=0)
    if newest > row.attempt:
        raise StaleAttempt(
            f"Attempt {row.attempt} of {row.key} is stale: attempt {newest} has already published "
            f"its row in {folder.place}. This one is dropped; nothing needs to be done."
        )
    # Failed rows have names of their own: a done row never overwrites the file that a compaction
    # has read and is about to remove.
    single = Single(row.key, row.attempt, is_failed=row.status == "failed")
    place = f"{folder.place}/{single.name}"
    if row.attempt in known and not (row.status == "done" and known[row.attempt] == "failed"):
        return place
    buffer = pa.BufferOutputStream()
    pq.write_table(_arrow(row), buffer)
    folder.put(single.name, buffer.getvalue().to_pybytes())
    if row.attempt in known:
        folder.remove([Single(row.key, row.attempt, is_failed=True).name])
    return place


def read_rows(root: str, keys: Collection[str] | None = None) -> list[Row]:
    """Every published row under root, ordered by key and attempt.

    Args:
        root: folder or fsspec URL.
        keys: of the cells to read; None reads all.

    Raises:
        ResultsError: a file is broken or of a newer schema; nothing is skipped silently.
    """
    table = read_table(root)
    if keys is not None:
        table = table.filter(pc.is_in(table["key"], pa.array(list(keys), pa.string())))
    return rows_of(table)


def cell_rows(root: str, key: str) -> list[Row]:
    """Every published row of one cell, oldest attempt first; fast among many small files.

    Raises:
        ResultsError: one of its files, or a compacted one, is broken.
    """
    return rows_of(_cell_table(open_folder(root), key))


def counted_rows(root: str, cells: Iterable[Cell], *, per_class: bool = False) -> list[Row]:
    """The row that counts of each of the cells, whatever its seed; fast among many others.

    Args:
        root: folder or fsspec URL.
        cells: their seeds do not matter.
        per_class: whether the rows shall have their lists over classes, which tables do not print.
    """
    table = counted_table(read_table(root))
    wanted = {cell.key.rpartition(".s")[0] for cell in cells}
    places = pc.replace_substring_regex(table["key"], r"\.s\d+$", "")
    chosen = table.filter(pc.is_in(places, pa.array(sorted(wanted), pa.string())))
    return rows_of(chosen if per_class else chosen.drop_columns(list(PER_CLASS)))


def counted(rows: Iterable[Row]) -> dict[str, Row]:
    """The one row of each cell that counts: its newest done attempt, else its newest failed one."""
    chosen: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (row.status == "done", row.attempt)):
        chosen[row.key] = row
    return chosen


def read_table(root: str) -> pa.Table:
    """Every published row under root as an Arrow table of `SCHEMA`, ordered by key and attempt.

    Raises:
        ResultsError: see `read_rows`.
    """
    return read_set(open_folder(root), SCHEMA, unique_rows)


def counted_table(table: pa.Table) -> pa.Table:
    """The rows that count, see `counted`, of a table of `read_table`."""
    if not len(table):
        return table
    codes = np.asarray(table["key"].combine_chunks().dictionary_encode().indices)
    is_done = np.asarray(pc.equal(table["status"], "done"))
    order = np.lexsort((np.asarray(table["attempt"]), is_done, codes))
    is_last = np.append(codes[order][1:] != codes[order][:-1], True)
    return table.take(pa.array(np.sort(order[is_last])))


def unique_rows(table: pa.Table) -> pa.Table:
    """Each attempt once, done before failed, then the first that finished; by key and attempt."""
    return first_of(table, ("key", "attempt", "status", "finished"), num_key=2)


def rows_of(table: pa.Table) -> list[Row]:
    """The rows of a table; columns that it lacks keep their defaults."""
    defaults = {f.name: f.default for f in fields(Row) if f.name not in table.column_names}
    names = [f.name for f in fields(Row) if f.name in table.column_names]
    names.append("key")  # is there: spares every reader to put it together again
    columns = [_plain(table[name]) for name in names]
    rows = []
    for values in zip(*columns, strict=True):
        # As pickle does it: calling a frozen class of 46 fields takes 20 times as long.
        row = object.__new__(Row)
        vars(row).update(defaults)
        vars(row).update(zip(names, values, strict=True))
        rows.append(row)
    return rows


def _attempts(folder: RowFolder, key: str) -> dict[int, str]:
    """Status of every published attempt of a cell."""
    table = _cell_table(folder, key)
    statuses = zip(table["attempt"].to_pylist(), table["status"].to_pylist(), strict=True)
    return dict(statuses)


def _cell_table(folder: RowFolder, key: str) -> pa.Table:
    """The attempts of one cell, without reading the files of others."""

    def own(_: RowFolder, names: Iterable[str]) -> set[str]:
        # A foreign file stops the readers, who say so; a finished run must not wait for that.
        return {n for n in names if COMPACTED.fullmatch(n) or _is_of(parse_name(n), key)}

    tables = parse_all(folder, stable_contents(folder, own), SCHEMA)
    mine = [table.filter(pc.equal(table["key"], key)) for table in tables]
    return unique_rows(pa.concat_tables([SCHEMA.empty_table(), *mine]))


def _is_of(single: Single | None, key: str) -> bool:
    return single is not None and single.key == key


def _arrow(row: Row) -> pa.Table:
    """A table of one row."""
    return pa.Table.from_pylist([{name: getattr(row, name) for name in SCHEMA.names}], SCHEMA)


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """A column's values; lists become tuples, and a missing list an empty one."""
    if pa.types.is_timestamp(column.type):  # five times as fast as Arrow's own way
        return [_EPOCH + timedelta(microseconds=us) for us in column.cast(pa.int64()).to_pylist()]
    values: list[Any] = column.to_pylist()
    if pa.types.is_list(column.type):
        return [() if value is None else tuple(value) for value in values]
    return values
