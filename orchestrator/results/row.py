"""One finished attempt as a Python object, and its way into and out of Arrow tables."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from sweeps.cell import Cell
from trainer.config.fingerprint import SEED, settings_sha256
from trainer.run_log import Counts

SCHEMA_VERSION = 2

COUNTS = pa.list_(pa.list_(pa.int64()))  # pixels by truth, then by prediction

_UTC = pa.timestamp("us", tz="UTC")
_REQUIRED = {
    "recipe": pa.string(),
    "split": pa.string(),
    "backbone": pa.string(),
    "crop": pa.int32(),
    "method": pa.string(),
    "loss": pa.string(),
    "seed": pa.int64(),
    "key": pa.string(),
    "attempt": pa.int32(),
    "status": pa.string(),
    "fingerprint": pa.string(),
    "config_json": pa.string(),
    "started": _UTC,
    "finished": _UTC,
}
_OPTIONAL = {
    "error_class": pa.string(),
    "error_text": pa.string(),
    "best_miou_percent": pa.float64(),
    "best_epoch": pa.int32(),
    "last_miou_percent": pa.float64(),
    "last_epoch": pa.int32(),
    "best_iou_percent": pa.list_(pa.float64()),
    "last_iou_percent": pa.list_(pa.float64()),
    "class_names": pa.list_(pa.string()),
    "best_confusion": COUNTS,
    "last_confusion": COUNTS,
    "epochs": pa.int32(),
    "steps": pa.int64(),
    "seconds": pa.float64(),
    "gpu_seconds": pa.float64(),
    "peak_memory_bytes": pa.int64(),
    "weights_sha256": pa.string(),
    "best_weights_sha256": pa.string(),
    "data_fingerprint": pa.string(),
    "split_checksum": pa.string(),
    "pretrained_sha256": pa.string(),
    "git_commit": pa.string(),
    "git_dirty": pa.bool_(),
    "python": pa.string(),
    "torch": pa.string(),
    "cuda": pa.string(),
    "ray": pa.string(),
    "device": pa.string(),
    "world_size": pa.int32(),
    "host": pa.string(),
    "backend": pa.string(),
    "settings_sha256": pa.string(),
}


def _schema(required: dict[str, pa.DataType], optional: dict[str, pa.DataType]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in required.items()]
        + [pa.field(name, kind) for name, kind in optional.items()]
        + [pa.field("schema_version", pa.int32(), nullable=False)]
    )


SCHEMA: pa.Schema = _schema(_REQUIRED, _OPTIONAL)

# One row per epoch of a published attempt. Terms of the loss are means over the epoch's logged
# steps; those that have no column of their own are in other_terms_json.
HISTORY_SCHEMA: pa.Schema = _schema(
    {"key": pa.string(), "attempt": pa.int32(), "epoch": pa.int32(), "step": pa.int64()},
    {
        "miou_percent": pa.float64(),
        "iou_percent": pa.list_(pa.float64()),
        "lr": pa.float64(),
        "loss_total": pa.float64(),
        "loss_labelled": pa.float64(),
        "loss_strong": pa.float64(),
        "loss_features": pa.float64(),
        "loss_inter_pixel": pa.float64(),
        "mask_ratio": pa.float64(),
        "other_terms_json": pa.string(),
    },
)


def migrated(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table in today's layout: older versions step by step, new columns empty.

    Args:
        table: as it was read from one file.
        schema: today's.

    Raises:
        ValueError: a newer version, or a needed column is missing.
    """
    version = version_of(table)
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"has schema version {version}, this checkout reads up to {SCHEMA_VERSION}. Update "
            "the checkout, or choose another root."
        )
    for step in range(version, SCHEMA_VERSION):
        table = _MIGRATIONS[step](table)
    if table.schema.equals(schema):
        return table
    columns = [_column(table, field) for field in schema]
    return pa.table(columns, schema=schema)


def version_of(table: pa.Table) -> int:
    """Newest schema version among the rows; 0 for files that carry none."""
    if "schema_version" not in table.column_names:
        return 0
    return pc.max(table["schema_version"]).as_py() or 0


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """A column of the table, cast; empty where the table has none."""
    if field.name == "schema_version":
        return pa.chunked_array([pa.array([SCHEMA_VERSION] * len(table), field.type)])
    if field.name in table.column_names:
        return table[field.name].cast(field.type)
    if not field.nullable:
        raise ValueError(f"has no column {field.name}. Move it away and launch the grid again.")
    return pa.chunked_array([pa.nulls(len(table), field.type)])


def _from_0(table: pa.Table) -> pa.Table:
    """Version 0 knew one mIoU, that of the best epoch, and no version."""
    names = {
        "miou_percent": "best_miou_percent",
        "iou_percent": "best_iou_percent",
        "epoch": "best_epoch",
        "wall_seconds": "seconds",
    }
    return table.rename_columns([names.get(name, name) for name in table.column_names])


def _from_1(table: pa.Table) -> pa.Table:
    """Version 1 knew neither confusion matrices nor the hash of a configuration but its seed."""
    if "config_json" not in table.column_names or "settings_sha256" in table.column_names:
        return table  # epochs, or a file without a version that has it
    texts = pc.replace_substring_regex(table["config_json"], SEED, "}").combine_chunks()
    codes = texts.dictionary_encode()
    hashes = pa.array([settings_sha256(text) for text in codes.dictionary.to_pylist()], pa.string())
    return table.append_column("settings_sha256", hashes.take(codes.indices))


_MIGRATIONS: dict[int, Callable[[pa.Table], pa.Table]] = {0: _from_0, 1: _from_1}


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
