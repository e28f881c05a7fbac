"""The row of an attempt: a dataclass whose annotations are also the columns on disk."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.failures import Failure
from orchestrator.results.arrow import leave_out_pandas
from orchestrator.trial import Trial
from sweeps.cell import Cell
from trainer.config.fingerprint import settings_sha256, track
from trainer.run_log import Counts, Summary

SCHEMA_VERSION = 2

# Python types with the Arrow type of their column; str, int, float and bool are in `_ARROW`.
Int32 = Annotated[int, pa.int32()]
Percentages = Annotated[tuple[float | None, ...], pa.list_(pa.float64())]
Names = Annotated[tuple[str, ...], pa.list_(pa.string())]
Confusion = Annotated[Counts, pa.list_(pa.list_(pa.int64()))]  # pixels by truth, then prediction
Time = Annotated[datetime, pa.timestamp("us", tz="UTC")]

_ARROW: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Provenance:
    """Code, package versions and host of an attempt; None for what is unknown."""

    git_commit: str | None
    git_dirty: bool | None
    python: str
    torch: str | None
    cuda: str | None
    ray: str | None
    host: str


@dataclass(frozen=True)
class Attempt:
    """One start of a trial: the part of its row that does not depend on its end."""

    trial: Trial
    number: int  # counted from 1 over all starts of the cell
    started: datetime
    provenance: Provenance

    def columns(self) -> dict[str, Any]:
        """The columns that every row has, whether the attempt ended well or not."""
        return {
            **asdict(Cell.parse(self.trial.key)),
            **asdict(self.provenance),
            "attempt": self.number,
            "fingerprint": self.trial.fingerprint,
            "config_json": self.trial.config_json,
            "started": self.started,
            "finished": datetime.now(UTC),
            "backend": self.trial.backend,
        }


@dataclass(frozen=True, kw_only=True)
class Row:
    """One finished attempt; only one row per cell counts, see `counted`.

    A column that is added here needs a default: files written before it read as if they held None.
    """

    schema_version: ClassVar[int] = SCHEMA_VERSION

    recipe: str
    split: str
    backbone: str
    crop: Int32  # pixels
    method: str
    loss: str
    seed: int
    key: str = field(init=False)  # of the cell: the seven above
    attempt: Int32  # counted from 1 over all starts of the cell
    status: Literal["done", "failed"]
    fingerprint: str  # sha256 of everything that can move the numbers
    config_json: str  # the whole resolved configuration
    started: Time  # UTC
    finished: Time  # UTC
    error_class: str | None = None  # of a failed attempt
    error_text: str | None = None
    best_miou_percent: float | None = None  # over the whole validation set
    best_epoch: Int32 | None = None
    last_miou_percent: float | None = None
    last_epoch: Int32 | None = None
    best_iou_percent: Percentages = ()  # per class; None where a class never occurs
    last_iou_percent: Percentages = ()
    class_names: Names = ()
    best_confusion: Confusion = ()  # over the whole validation set
    last_confusion: Confusion = ()
    epochs: Int32 | None = None
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
    world_size: Int32 | None = None
    host: str | None = None
    backend: str | None = None
    settings_sha256: str = field(init=False, default="")  # of the configuration but its seed
    absent_classes: Names = ()  # that no validation mask shows
    absent_rule: str | None = None  # zero or skip, see evaluation.absent; of rows with such classes
    track: str | None = field(init=False, default=None)  # common or released, see docs/released.md

    def __post_init__(self) -> None:
        # Columns that follow from others are worked out here, so that replace() keeps them right.
        object.__setattr__(self, "key", self.cell.key)
        object.__setattr__(self, "settings_sha256", settings_sha256(self.config_json))
        object.__setattr__(self, "track", track(self.config_json))

    @classmethod
    def from_summary(
        cls, attempt: Attempt, summary: Summary, class_names: tuple[str, ...]
    ) -> "Row":
        """The row of a complete run.

        Args:
            attempt: which start of which cell.
            summary: the numbers of the run; its fields are columns of the same names.
            class_names: of the data set, in the order of the numbers per class.
        """
        numbers = asdict(summary)
        del numbers["status"]
        is_gpu = not summary.device.startswith("cpu")
        return cls(
            **attempt.columns(),
            **numbers,
            status="done",
            class_names=class_names,
            gpu_seconds=summary.seconds * summary.world_size if is_gpu else 0.0,
        )

    @classmethod
    def from_failure(cls, attempt: Attempt, failure: Failure, text: str) -> "Row":
        """The row of an attempt that failed for good.

        Args:
            attempt: which start of which cell.
            failure: class of the error.
            text: what is known of the error, such as its traceback.
        """
        return cls(
            **attempt.columns(),
            status="failed",
            error_class=failure.value,
            error_text=text,
            world_size=attempt.trial.ranks,
        )

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
    def group(self) -> str:
        """The key without the seed: rows of one group are repetitions."""
        return self.key.rpartition(".s")[0]


def _schema_of(kind: type) -> pa.Schema:
    """Columns of a dataclass, in its order; those without a default must be there."""
    hints = get_type_hints(kind, include_extras=True)
    columns = [
        pa.field(f.name, _arrow(hints[f.name]), nullable=f.default is not MISSING)
        for f in fields(kind)
    ]
    return pa.schema([*columns, pa.field("schema_version", pa.int32(), nullable=False)])


def _arrow(hint: Any) -> pa.DataType:
    """The Arrow type of an annotation; `X | None` has that of X."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[1]
    if get_origin(hint) is Literal:
        return pa.string()
    return _ARROW.get(hint) or _arrow(get_args(hint)[0])


AXES = tuple(f.name for f in fields(Cell))
SCHEMA: pa.Schema = _schema_of(Row)

# One row per epoch of a published attempt. Terms of the loss are means over the epoch's logged
# steps; those that have no column of their own are in other_terms_json.
HISTORY_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("miou_percent", pa.float64()),
        pa.field("iou_percent", pa.list_(pa.float64())),
        pa.field("lr", pa.float64()),
        pa.field("loss_total", pa.float64()),
        pa.field("loss_labelled", pa.float64()),
        pa.field("loss_strong", pa.float64()),
        pa.field("loss_features", pa.float64()),
        pa.field("loss_inter_pixel", pa.float64()),
        pa.field("mask_ratio", pa.float64()),
        pa.field("other_terms_json", pa.string()),
        pa.field("schema_version", pa.int32(), nullable=False),
    ]
)


def with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of a schema; a column that it lacks is empty.

    Args:
        table: as it was read from one file.
        schema: `SCHEMA`, `HISTORY_SCHEMA`, or some of their columns with schema_version.

    Raises:
        ValueError: another schema version, or a needed column is missing.
    """
    _check_version(table)
    if table.schema.equals(schema):
        return table
    return pa.table([_column(table, wanted) for wanted in schema], schema=schema)


def _check_version(table: pa.Table) -> None:
    """Refuse a table with a row of another version than this checkout's."""
    if "schema_version" not in table.column_names:
        raise ValueError("has no column schema_version. Move it away and launch the grid again.")
    ends = pc.min_max(table["schema_version"]).as_py().values()
    other = next((version for version in ends if version not in (SCHEMA_VERSION, None)), None)
    if other is not None:
        raise ValueError(
            f"has schema version {other}, this checkout reads version {SCHEMA_VERSION}. Read it "
            "with the checkout that wrote it, or choose another root."
        )


def _column(table: pa.Table, wanted: pa.Field) -> pa.ChunkedArray:
    """A column of the table in the wanted type; empty where the table has none."""
    if wanted.name in table.column_names:
        return table[wanted.name].cast(wanted.type)
    if not wanted.nullable:
        raise ValueError(f"has no column {wanted.name}. Move it away and launch the grid again.")
    return pa.chunked_array([pa.nulls(len(table), wanted.type)])


def rows_of(table: pa.Table) -> list[Row]:
    """The rows of a table, which may lack columns.

    A missing column has its default in the rows, or is no attribute of them if it has no default.
    """
    names = [f.name for f in fields(Row) if f.name in table.column_names]
    columns = [_plain(table[name]) for name in names]
    if "key" in names:  # one pass over the column is a third of one over the rows
        columns.append(pc.replace_substring_regex(table["key"], r"\.s\d+$", "").to_pylist())
        names.append("group")
    rows = []
    with uncollected():
        for values in zip(*columns, strict=True):
            # As pickle does it: calling a frozen class of 47 fields takes 20 times as long.
            # Defaults are found in the class.
            row = object.__new__(Row)
            row.__dict__.update(zip(names, values, strict=True))
            rows.append(row)
    return rows


@contextmanager
def uncollected() -> Iterator[None]:
    """Switch the garbage collector off: it would walk over all that is new again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def arrow_of(row: Row) -> pa.Table:
    """The row as a table with one line, ready to be written."""
    leave_out_pandas()
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
