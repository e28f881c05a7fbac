"""Results as Parquet: one file per finished attempt of a cell, readable by any tool as it lies.

``<root>/results/rows/<key>.a0001.parquet`` is the place; root is a folder or a URL of fsspec
(s3://bucket/prefix). Needs neither torch nor ray.
"""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.result_files import RowFolder, open_folder
from sweeps.cell import Cell

SCHEMA_VERSION = 1

_NAME = re.compile(r"(?P<key>.+)\.a(?P<attempt>\d+)\.parquet")
_THREADS = 8


class StaleAttempt(RuntimeError):
    """A newer attempt of the same cell has already published its row."""


class ResultsError(ValueError):
    """A file among the results cannot be read; the text names it and the cure."""


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

    @property
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

    @property
    def key(self) -> str:
        """Key of the cell; stored as a column as well."""
        return self.cell.key


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
}
SCHEMA: pa.Schema = pa.schema(
    [pa.field(name, kind, nullable=False) for name, kind in _REQUIRED.items()]
    + [pa.field(name, kind) for name, kind in _OPTIONAL.items()]
    + [pa.field("schema_version", pa.int32(), nullable=False)]
)


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
    name = f"{row.key}.a{row.attempt:04d}.parquet"
    existing = folder.names()
    newest = max((attempt for key, attempt in _attempts(existing) if key == row.key), default=0)
    if newest > row.attempt:
        raise StaleAttempt(
            f"Attempt {row.attempt} of {row.key} is stale: attempt {newest} has already published "
            f"its row in {folder.place}. This one is dropped; nothing needs to be done."
        )
    if name in existing and not _replaces(row, _parse(name, folder.read([name])[name], folder)):
        return f"{folder.place}/{name}"
    buffer = pa.BufferOutputStream()
    pq.write_table(_arrow(row), buffer)
    folder.put(name, buffer.getvalue().to_pybytes())
    return f"{folder.place}/{name}"


def read_rows(root: str) -> list[Row]:
    """Every published row under root, ordered by key and attempt.

    Raises:
        ResultsError: a file is broken or of a newer schema; nothing is skipped silently.
    """
    folder = open_folder(root)
    names = sorted(name for name in folder.names() if _is_row(name, folder))
    contents = folder.read(names)
    with ThreadPoolExecutor(_THREADS) as pool:
        rows = pool.map(lambda name: _parse(name, contents[name], folder), names)
        return sorted(rows, key=lambda row: (row.key, row.attempt))


def counted(rows: Iterable[Row]) -> dict[str, Row]:
    """The one row of each cell that counts: its newest done attempt, else its newest failed one."""
    chosen: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (row.status == "done", row.attempt)):
        chosen[row.key] = row
    return chosen


def _is_row(name: str, folder: RowFolder) -> bool:
    """Whether the name is a row's; hidden files are unfinished ones."""
    if _NAME.fullmatch(name) and not name.startswith("."):
        return True
    if name.endswith(".parquet") and not name.startswith("."):
        raise ResultsError(
            f"{folder.place}/{name} is no row: names there read <key>.a0001.parquet. Move it away."
        )
    return False


def _attempts(names: Iterable[str]) -> list[tuple[str, int]]:
    """Key and attempt of every row file among the names."""
    matches = (_NAME.fullmatch(name) for name in names)
    return [(match["key"], int(match["attempt"])) for match in matches if match]


def _replaces(new: Row, old: Row) -> bool:
    return new.status == "done" and old.status == "failed"


def _arrow(row: Row) -> pa.Table:
    """A table of one row."""
    return pa.Table.from_pylist([{name: getattr(row, name) for name in SCHEMA.names}], SCHEMA)


def _parse(name: str, content: bytes, folder: RowFolder) -> Row:
    """The row in one file."""
    try:
        (values,) = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ResultsError(
            f"{folder.place}/{name} is no readable row ({error}). Move it away and launch the "
            "grid again; its cell will then count as missing."
        ) from error
    if values["schema_version"] > SCHEMA_VERSION:
        raise ResultsError(
            f"{folder.place}/{name} has schema version {values['schema_version']}, this checkout "
            f"reads up to {SCHEMA_VERSION}. Update the checkout, or choose another root."
        )
    known = {field.name for field in fields(Row)}
    return Row(**{name: _plain(value) for name, value in values.items() if name in known})


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
