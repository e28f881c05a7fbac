"""Reads all files of a folder of results as one table, while others write and compact there.

A file is either one attempt's, ``<key>.a0001.parquet`` (a failed one ends in ``.failed.parquet``),
or a compaction's, ``compacted-<time>-<id>.parquet``. A compaction writes its file before it removes
the files in it, so an attempt may be there twice and is never absent; here each counts once.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.results.arrow import leave_out_pandas
from orchestrator.results.row import with_schema
from orchestrator.storage.root import ResultFolder
from sweeps.cell import Cell

COMPACTED = re.compile(r"compacted-[0-9TZ]+-[0-9a-f]+\.parquet")
COMPACTED_START = "compacted-"

_SINGLE = re.compile(r"(?P<key>.+)\.a(?P<attempt>\d+)(?P<failed>\.failed)?\.parquet")
_THREADS = 8
_TRIES = 20  # each one needs another compaction in the very moment of reading

Reducer = Callable[[pa.Table], pa.Table]


class ResultsError(ValueError):
    """A file among the results cannot be read; the text names it and the cure."""


@dataclass(frozen=True)
class Single:
    """What the name of an attempt's file says."""

    key: str
    attempt: int
    is_failed: bool

    @property
    def name(self) -> str:
        """The file name."""
        return f"{self.key}.a{self.attempt:04d}{'.failed' if self.is_failed else ''}.parquet"


def parse_name(name: str) -> Single | None:
    """What a name says; None for any other file."""
    match = None if name.startswith(".") else _SINGLE.fullmatch(name)
    return match and Single(match["key"], int(match["attempt"]), match["failed"] is not None)


def groups_of(cells: Iterable[Cell]) -> frozenset[str]:
    """The keys of cells without their seeds."""
    return frozenset(_group(cell.key) for cell in cells)


def read_set(
    folder: ResultFolder,
    schema: pa.Schema,
    unique: Reducer,
    groups: frozenset[str] | None = None,
) -> pa.Table:
    """Every row of the folder in today's layout, each once.

    Args:
        folder: of rows or of history.
        schema: the layout.
        unique: drops what is there twice, and sorts.
        groups: see `groups_of`; files that hold nothing of them may be broken or foreign, and are
            left out then. None needs every file.

    Raises:
        ResultsError: a file is broken, foreign or of a newer schema; what is needed is never
            skipped silently.
    """
    leave_out_pandas()
    choose = result_names if groups is None else _result_names_alone
    contents = stable_contents(folder, choose)
    tables = parse_all(folder, contents, schema, groups)
    return unique(pa.concat_tables(tables) if tables else schema.empty_table())


def result_names(folder: ResultFolder, names: Iterable[str]) -> set[str]:
    """The names that hold results.

    Raises:
        ResultsError: another Parquet file lies among them, which dataset readers would take in.
    """
    shown = {name for name in names if name.endswith(".parquet") and not name.startswith(".")}
    for name in sorted(shown):
        if parse_name(name) is None and not COMPACTED.fullmatch(name):
            raise ResultsError(
                f"{folder.address}/{name} is no row: names there read <key>.a0001.parquet. "
                "Move it away."
            )
    return shown


def _result_names_alone(_: ResultFolder, names: Iterable[str]) -> set[str]:
    """The names that hold results, whatever else lies there."""
    return {name for name in names if parse_name(name) or COMPACTED.fullmatch(name)}


def stable_contents(
    folder: ResultFolder,
    choose: Callable[[ResultFolder, Iterable[str]], set[str]],
    starts: Sequence[str] = ("",),
) -> dict[str, bytes]:
    """Contents of the chosen files, from a moment in which nothing was half compacted.

    A listing during a compaction may miss both the old file and the new one. Then the names of
    compacted files differ after the reading, and it is repeated.

    Args:
        folder: of rows or of history.
        choose: of the names, those to read.
        starts: of the names to choose from; with those of compacted files among them.

    Raises:
        ResultsError: the folder changes faster than it can be read.
    """
    for _ in range(_TRIES):
        names = choose(folder, folder.names(starts))
        try:
            contents = folder.read(sorted(names))
        except FileNotFoundError:
            continue
        if _compacted(folder.names((COMPACTED_START,))) == _compacted(names):
            return contents
    raise ResultsError(
        f"{folder.address} was compacted {_TRIES} times while it was read; stop the other "
        "compactions and try again."
    )


def parse_all(
    folder: ResultFolder,
    contents: dict[str, bytes],
    schema: pa.Schema,
    groups: frozenset[str] | None = None,
) -> list[pa.Table]:
    """The table of each file, in today's layout; see `read_set` for `groups`."""

    def parse(item: tuple[str, bytes]) -> pa.Table:
        single = parse_name(item[0])  # None of a compacted file, which may hold any cell
        try:
            table = _parse(folder, *item, schema=schema)
        except ResultsError:
            if groups is None or single is None or _group(single.key) in groups:
                raise
            return schema.empty_table()
        other = None if single is None else _misnamed(table, single)
        if single and other and (groups is None or groups & {*map(_group, (single.key, other))}):
            raise ResultsError(
                f"{folder.address}/{item[0]} holds another attempt than its name says, one of "
                f"{other}. Give it its name <key>.a0001.parquet back, or move it away."
            )
        return table

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(parse, contents.items()))


def _misnamed(table: pa.Table, single: Single) -> str | None:
    """The key of a row that the name of its file does not say; None where there is none."""
    is_own = pc.and_(pc.equal(table["key"], single.key), pc.equal(table["attempt"], single.attempt))
    index = pc.index(is_own, False).as_py()
    return None if index < 0 else str(table["key"][index])


def first_of(table: pa.Table, order: Sequence[str], num_key: int) -> pa.Table:
    """The table sorted by columns, with the first row of every combination of the leading ones.

    Args:
        table: rows in any order.
        order: columns to sort by, ascending.
        num_key: how many of them name a row.
    """
    if _is_strictly_ascending(table, order[:num_key]):
        return table  # as a compaction left it: nothing to sort and nothing twice
    sorted_indices = pc.sort_indices(table.select(order), [(name, "ascending") for name in order])
    indices = np.asarray(sorted_indices)
    same = np.ones(max(len(table) - 1, 0), dtype=bool)
    for name in order[:num_key]:
        codes = _codes(table[name])[indices]
        same &= codes[1:] == codes[:-1]
    return table.take(pa.array(indices[np.append(True, ~same)[: len(table)]]))


def _group(key: str) -> str:
    """The key of a cell without its seed."""
    return key.rpartition(".s")[0]


def _compacted(names: Iterable[str]) -> set[str]:
    return {n for n in names if n.startswith(COMPACTED_START) and COMPACTED.fullmatch(n)}


def _is_strictly_ascending(table: pa.Table, names: Sequence[str]) -> bool:
    """Whether every row has a larger key than the one before."""
    # In Arrow throughout: on their way from or to Python, values load pandas where it is installed.
    undecided = None
    for name in names:
        before, after = table[name][:-1], table[name][1:]
        is_less, is_equal = pc.less(after, before), pc.equal(after, before)
        if pc.any(is_less if undecided is None else pc.and_(undecided, is_less)).as_py():
            return False
        undecided = is_equal if undecided is None else pc.and_(undecided, is_equal)
    return not pc.any(undecided).as_py()


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers that are equal where the values are."""
    if pa.types.is_string(column.type):
        column = column.combine_chunks().dictionary_encode().indices
    return np.asarray(column)


def _parse(folder: ResultFolder, name: str, content: bytes, *, schema: pa.Schema) -> pa.Table:
    """The table in one file."""
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        table = _columns(file, schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ResultsError(
            f"{folder.address}/{name} is no readable row ({error}). Move it away and launch the "
            "grid again; its cell will then count as missing."
        ) from error
    try:
        return with_schema(table, schema)
    except (pa.ArrowException, ValueError) as error:
        raise ResultsError(f"{folder.address}/{name} {error}") from error


def _columns(file: pq.ParquetFile, schema: pa.Schema) -> pa.Table:
    """The wanted columns, of those that the file has."""
    there = set(file.schema_arrow.names)
    wanted = [name for name in schema.names if name in there]
    # Naming every column costs more than reading them: a small file is read whole.
    return file.read(columns=wanted if len(wanted) < len(there) else None, use_threads=False)
