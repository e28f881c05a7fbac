"""One finished attempt as a Python object, and its way into and out of Arrow tables."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.result_schema import SCHEMA, SCHEMA_VERSION
from orchestrator.settings import settings_sha256
from sweeps.cell import Cell
from trainer.summary import Counts

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STORED = ("key", "settings_sha256")  # columns that a row could also work out


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
    best_confusion: Counts = ()  # pixels of the validation set by truth and prediction
    last_confusion: Counts = ()
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

    @cached_property
    def settings_sha256(self) -> str:
        """Hash of the configuration but its seed; stored as a column as well."""
        return settings_sha256(self.config_json)

    @cached_property
    def place(self) -> str:
        """The key without the seed: rows of one place are repetitions."""
        return self.key.rpartition(".s")[0]


def rows_of(table: pa.Table) -> list[Row]:
    """The rows of a table; columns that it lacks keep their defaults, and have none if needed."""
    names = [f.name for f in fields(Row) if f.name in table.column_names]
    names += [name for name in _STORED if name in table.column_names]
    columns = [_plain(table[name]) for name in names]
    if "key" in names:  # one pass over the column is a third of one over the rows
        columns.append(pc.replace_substring_regex(table["key"], r"\.s\d+$", "").to_pylist())
        names.append("place")
    rows = []
    with _uncollected():
        for values in zip(*columns, strict=True):
            # As pickle does it: calling a frozen class of 49 fields takes 20 times as long.
            # Defaults are found in the class.
            row = object.__new__(Row)
            row.__dict__.update(zip(names, values, strict=True))
            rows.append(row)
    return rows


@contextmanager
def _uncollected() -> Iterator[None]:
    """Spares the garbage collector to look again and again at what is being made."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def arrow_of(row: Row) -> pa.Table:
    """A table of one row."""
    return pa.Table.from_pylist([{name: getattr(row, name) for name in SCHEMA.names}], SCHEMA)


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """A column's values; lists become tuples, and a missing list an empty one."""
    if pa.types.is_timestamp(column.type):  # five times as fast as Arrow's own way
        return [_EPOCH + timedelta(microseconds=us) for us in column.cast(pa.int64()).to_pylist()]
    values: list[Any] = column.to_pylist()
    if pa.types.is_list(column.type) and pa.types.is_list(column.type.value_type):
        return [() if value is None else tuple(map(tuple, value)) for value in values]
    if pa.types.is_list(column.type):
        return [() if value is None else tuple(value) for value in values]
    return values
