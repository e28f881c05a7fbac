"""Merges many small result files into one, for speed; nothing depends on it.

It may be killed at any moment: the merged file is durable before the files in it are removed, and
rows that a kill leaves twice count once for readers and are merged by the next compaction.
Only names that were read are removed, and no writer ever puts other content under such a name.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.results.files import (
    COMPACTED,
    Reducer,
    parse_all,
    result_names,
    stable_contents,
)
from orchestrator.results.history import unique_history
from orchestrator.results.row import HISTORY_SCHEMA, SCHEMA
from orchestrator.results.store import unique_rows
from orchestrator.storage.root import ResultFolder, ResultKind, Root

_ROW_GROUP = 20_000  # lets a reader skip what it does not want
_SETS: Mapping[ResultKind, tuple[pa.Schema, Reducer]] = {
    "rows": (SCHEMA, unique_rows),
    "history": (HISTORY_SCHEMA, unique_history),
}


@dataclass(frozen=True)
class Compaction:
    """What a compaction did to one folder.

    Attributes:
        address: of the folder.
        merged: number of files that became one; 0 when there was nothing to do.
        rows: in the compacted file.
        is_busy: another process was compacting, so this one did nothing.
    """

    address: str
    merged: int = 0
    rows: int = 0
    is_busy: bool = False


def compact(root: Root, *, at_least: int = 1) -> list[Compaction]:
    """Compact rows and history, while others may read, publish and compact.

    Args:
        root: of the results.
        at_least: do nothing to a folder with fewer small files than this.

    Raises:
        ResultsError: a file is broken or foreign; nothing is removed then.
        OSError: the compacted file cannot be written; nothing is removed then.
    """
    return [_compact(root.results(kind), *_SETS[kind], at_least=at_least) for kind in _SETS]


def _compact(
    folder: ResultFolder, schema: pa.Schema, unique: Reducer, *, at_least: int
) -> Compaction:
    """Compact one folder."""
    names = result_names(folder, folder.names())
    if not _is_due(names, at_least):
        return Compaction(folder.address)
    with folder.compaction_lock() as is_ours:
        if not is_ours:
            return Compaction(folder.address, is_busy=True)
        _sweep(folder)
        contents = stable_contents(folder, result_names)
        tables = dict(zip(contents, parse_all(folder, contents, schema), strict=True))
        if not _is_due(set(tables), at_least):
            return Compaction(folder.address)
        merged = unique(pa.concat_tables(tables.values()))
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        folder.put(f"compacted-{stamp}-{uuid.uuid4().hex[:12]}.parquet", _bytes(merged))
        folder.remove(tables)
        return Compaction(folder.address, len(tables), len(merged))


def _is_due(names: set[str], at_least: int) -> bool:
    compacted = sum(COMPACTED.fullmatch(name) is not None for name in names)
    return len(names) - compacted >= max(at_least, 1) or compacted > 1


def _sweep(folder: ResultFolder) -> None:
    """Remove what a compaction that was killed had begun to write."""
    folder.remove(name for name in folder.names() if name.startswith(".compacted-"))


def _bytes(table: pa.Table) -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", row_group_size=_ROW_GROUP)
    content: bytes = buffer.getvalue().to_pybytes()
    return content
