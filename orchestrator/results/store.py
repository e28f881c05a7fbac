"""Publishes and reads rows: one Parquet file per finished attempt, which any tool can read.

A row lies in ``<root>/results/rows/<key>.a0001.parquet``. `orchestrator.results.compaction` may
put many rows into one file beside them. Needs neither torch nor ray.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.failures import StaleAttempt
from orchestrator.results.counted import Today, counted
from orchestrator.results.files import (
    COMPACTED,
    COMPACTED_START,
    ResultsError,
    Single,
    first_of,
    groups_of,
    parse_all,
    parse_name,
    read_set,
    stable_contents,
)
from orchestrator.results.row import AXES, SCHEMA, SCHEMA_VERSION, Row, arrow_of, rows_of
from orchestrator.storage.root import ResultFolder, Root
from sweeps.cell import Cell

CONFUSIONS = tuple(f.name for f in SCHEMA if f.name.endswith("_confusion"))
PER_CLASS = tuple(f.name for f in SCHEMA if pa.types.is_list(f.type))
# The columns of printed tables; the others are nine tenths of the bytes.
PRINTED = (
    *(*AXES, "key", "attempt", "status", "fingerprint", "settings_sha256"),
    *("best_miou_percent", "best_epoch", "last_miou_percent"),
    *("last_epoch", "weights_sha256", "best_weights_sha256", "git_commit", "git_dirty", "torch"),
    *("cuda", "device", "world_size", "error_class", "absent_classes", "absent_rule"),
    *("data_fingerprint", "split_checksum", "pretrained_sha256", "track"),
)
# The columns of a plan. Without the configurations its rows take half of the time and the memory.
PLANNED = (
    *("recipe", "backbone", "seed", "key", "attempt", "status", "fingerprint"),
    *("data_fingerprint", "split_checksum", "pretrained_sha256", "error_class", "error_text"),
    *("host", "best_miou_percent", "epochs", "steps", "seconds", "gpu_seconds"),
)
_ORDER = ("key", "attempt", "status", "finished")
COUNTING = (
    *("key", "attempt", "status", "fingerprint"),
    *("data_fingerprint", "split_checksum", "pretrained_sha256"),
)

__all__ = [
    "CONFUSIONS",
    "PER_CLASS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "ResultsError",
    "Row",
    "cell_rows",
    "counted_rows",
    "done_rows",
    "late_rows",
    "planned_rows",
    "publish",
    "read_rows",
    "read_table",
    "rows_of",
    "state_rows",
]


def publish(root: Root, row: Row, *, is_newest: bool = False) -> str:
    """Make a finished attempt part of the results, whole or not at all.

    The first row of an attempt stays, so that publishing twice is harmless; only a done row
    replaces a failed one (a launch may give a run up in the moment when it finishes).

    Args:
        root: under which runs and results lie.
        row: what to publish.
        is_newest: no newer attempt of the cell has begun, so only files of this one are looked at.

    Returns:
        The path or URL of the row's file.

    Raises:
        StaleAttempt: a newer attempt of the cell has published already.
        OSError: the folder cannot be written (full disk, rights); nothing half-written is left.
    """
    folder = root.results("rows")
    known = _own_files(folder, row) if is_newest else _attempts(folder, row.key)
    newest = max(known, default=0)
    if newest > row.attempt:
        raise StaleAttempt(
            f"Attempt {row.attempt} of {row.key} is stale: attempt {newest} has already published "
            f"its row in {folder.address}. This one is dropped; nothing needs to be done."
        )
    # Failed rows have names of their own: a done row never overwrites the file that a compaction
    # has read and is about to remove.
    single = Single(row.key, row.attempt, is_failed=row.status == "failed")
    path = f"{folder.address}/{single.name}"
    if row.attempt in known and not (row.status == "done" and known[row.attempt] == "failed"):
        return path
    buffer = pa.BufferOutputStream()
    pq.write_table(arrow_of(row), buffer)
    folder.put(single.name, buffer.getvalue().to_pybytes())
    # After the done row: a kill in between leaves both, of which the done one counts.
    if row.attempt in known:
        folder.remove([Single(row.key, row.attempt, is_failed=True).name])
    return path


def read_rows(
    root: Root, keys: Collection[str] | None = None, cells: Iterable[Cell] | None = None
) -> list[Row]:
    """Every published row under root, ordered by key and attempt.

    Args:
        root: of the results.
        keys: of the cells to read; None reads all.
        cells: whose rows must be readable, at any seed; None needs all.

    Raises:
        ResultsError: a file is broken or of a newer schema; nothing is skipped silently.
    """
    return rows_of(_of_keys(read_table(root, cells=cells), keys))


def state_rows(
    root: Root, cells: Iterable[Cell] | None = None, keys: Collection[str] | None = None
) -> list[Row]:
    """Every published row under root without its lists over classes.

    Args:
        root: of the results.
        cells: whose rows must be readable; None needs all.
        keys: of the cells to read; None reads all.

    Raises:
        ResultsError: see `read_rows`.
    """
    columns = [name for name in SCHEMA.names if name not in PER_CLASS]
    return rows_of(_of_keys(read_table(root, columns, cells).select(columns), keys))


def planned_rows(root: Root, cells: Iterable[Cell]) -> list[Row]:
    """Every published row under root with the columns of `PLANNED` and no others.

    Args:
        root: of the results.
        cells: whose rows must be readable.

    Raises:
        ResultsError: see `read_rows`.
    """
    return rows_of(read_table(root, PLANNED, cells).select(PLANNED))


def done_rows(root: Root, key: str, attempts: Iterable[int]) -> list[Row]:
    """The done rows of some attempts of a cell, as far as no compaction has taken them.

    Costs the same however many rows of other cells there are.

    Raises:
        ResultsError: one of the files is broken.
    """
    folder = root.results("rows")
    there = folder.present(Single(key, number, is_failed=False).name for number in attempts)
    contents: dict[str, bytes] = {}
    with suppress(FileNotFoundError):  # a compaction takes them in this moment
        contents = folder.read(there)
    return [row for table in parse_all(folder, contents, SCHEMA) for row in rows_of(table)]


def late_rows(root: Root, keys: Collection[str], known: Iterable[Row]) -> list[Row]:
    """Rows of some cells that were published after others were read; one look at the folder.

    Args:
        root: of the results.
        keys: of the cells.
        known: what was read before.
    """
    if not keys:
        return []
    seen = {(row.key, row.attempt) for row in known}
    singles = map(parse_name, root.results("rows").names())
    new = {s.key for s in singles if s and s.key in keys and (s.key, s.attempt) not in seen}
    return [row for key in sorted(new) for row in cell_rows(root, key)]


def cell_rows(root: Root, key: str) -> list[Row]:
    """Every published row of one cell, oldest attempt first; fast among many small files.

    Raises:
        ResultsError: one of its files, or a compacted one, is broken.
    """
    return rows_of(_cell_table(root.results("rows"), key))


def counted_rows(
    root: Root, cells: Iterable[Cell], today: Mapping[str, Today], *, per_class: bool = False
) -> list[Row]:
    """The row that counts of each of the cells, whatever its seed; fast among many others.

    Args:
        root: of the results.
        cells: their seeds do not matter.
        today: see `counted`.
        per_class: whole rows; without, they have what tables print and nothing else.
    """
    cells = list(cells)
    table = counted_table(read_table(root, None if per_class else PRINTED, cells), today)
    wanted = groups_of(cells)
    groups = pc.replace_substring_regex(table["key"], r"\.s\d+$", "")
    is_wanted = pc.is_in(groups, pa.array(sorted(wanted), pa.string()))
    chosen = table if pc.all(is_wanted).as_py() else table.filter(is_wanted)
    return rows_of(chosen if per_class else chosen.select(PRINTED))


def read_table(
    root: Root,
    columns: Collection[str] | None = None,
    cells: Iterable[Cell] | None = None,
) -> pa.Table:
    """Every published row under root as an Arrow table of `SCHEMA`, ordered by key and attempt.

    Args:
        root: of the results.
        columns: of the schema that are wanted; some more come along. None reads all.
        cells: whose rows must be readable, at any seed; None needs all.

    Raises:
        ResultsError: see `read_rows`.
    """
    groups = None if cells is None else groups_of(cells)
    if columns is None:
        return read_set(root.results("rows"), SCHEMA, unique_rows, groups)
    wanted = {*columns, *_ORDER, "schema_version"}
    schema = pa.schema([field for field in SCHEMA if field.name in wanted])
    return read_set(root.results("rows"), schema, unique_rows, groups)


def counted_table(table: pa.Table, today: Mapping[str, Today]) -> pa.Table:
    """The rows that count, see `counted`, of a table of `read_table` that has `COUNTING`."""
    if not len(table):
        return table
    keys = table["key"]  # in order
    is_repeat = np.asarray(pc.equal(keys[1:], keys[:-1]))
    if not is_repeat.any():
        return table
    # Only cells of several rows are looked at row by row: of 100,000 rows these are few.
    among = np.append(is_repeat, False) | np.append(False, is_repeat)
    several = rows_of(table.select(COUNTING).filter(pa.array(among)))
    chosen = {(row.key, row.attempt) for row in counted(several, today).values()}
    counts = ~among
    counts[among] = [(row.key, row.attempt) in chosen for row in several]
    return table.filter(pa.array(counts))


def unique_rows(table: pa.Table) -> pa.Table:
    """Each attempt once, done before failed, then the first that finished; by key and attempt."""
    return first_of(table, _ORDER, num_key=2)


def _of_keys(table: pa.Table, keys: Collection[str] | None) -> pa.Table:
    """The rows of some cells; of all where none are given."""
    if keys is None:
        return table
    return table.filter(pc.is_in(table["key"], pa.array(list(keys), pa.string())))


def _own_files(folder: ResultFolder, row: Row) -> dict[int, str]:
    """Status of the attempt of a row, where it has a file; a compaction may have taken that."""
    done, failed = (Single(row.key, row.attempt, is_failed=failed).name for failed in (False, True))
    there = folder.present((done, failed))
    return {row.attempt: "done" if done in there else "failed"} if there else {}


def _attempts(folder: ResultFolder, key: str) -> dict[int, str]:
    """Status of every published attempt of a cell."""
    table = _cell_table(folder, key)
    statuses = zip(table["attempt"].to_pylist(), table["status"].to_pylist(), strict=True)
    return dict(statuses)


def _cell_table(folder: ResultFolder, key: str) -> pa.Table:
    """The attempts of one cell, without reading the files of others."""

    def own(_: ResultFolder, names: Iterable[str]) -> set[str]:
        # Readers refuse a folder with a foreign file; a finished run is published all the same.
        return {n for n in names if COMPACTED.fullmatch(n) or _is_of(parse_name(n), key)}

    contents = stable_contents(folder, own, (COMPACTED_START, f"{key}.a"))
    tables = parse_all(folder, contents, SCHEMA)
    mine = [table.filter(pc.equal(table["key"], key)) for table in tables]
    return unique_rows(pa.concat_tables([SCHEMA.empty_table(), *mine]))


def _is_of(single: Single | None, key: str) -> bool:
    return single is not None and single.key == key
