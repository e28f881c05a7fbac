"""What a reader must know beside the numbers: sources, gaps, mixtures, provenance."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from orchestrator.results import Row as Result
from orchestrator.tables import roundings
from orchestrator.tables.filled import FilledRow, FilledTable, Mark, Note
from trainer.config import TrainConfig

_SEED = re.compile(r',"seed":\d+\}$')
_EXPLAINED = {
    Mark.DRIFTED: "ran with another configuration than today's; launch it under a new root "
    "to renew it.",
    Mark.MIXED: "its seeds ran with different configurations.",
    Mark.MACHINES: "its runs come from different commits, versions, devices or world sizes.",
}
_COMPARED: dict[str, Callable[[Result], object]] = {
    "git commits": lambda row: (row.git_commit or "unknown")[:10],
    "torch versions": lambda row: row.torch or "unknown",
    "CUDA versions": lambda row: row.cuda or "none",
    "devices": lambda row: row.device or "unknown",
    "world sizes": lambda row: row.world_size or "unknown",
}


def notes_of(filled: FilledTable) -> tuple[Note, ...]:
    """All lines below a table, in print order."""
    return (
        *(Note("", text) for text in filled.table.notes),
        *_own_notes(filled),
        *_quoted(filled),
        *_missing(filled),
        *_marked(filled),
        *_provenance(filled),
    )


def settings(config_json: str) -> str:
    """A row's configuration without its seed and without where and how fast it ran."""
    # Of sorted names the seed comes last; without it, all seeds of a cell have one text.
    return _settings(_SEED.sub("}", config_json))


@cache
def _settings(config_json: str) -> str:
    plain = json.loads(config_json)
    for name in ("seed", *_executing(TrainConfig)):
        place, *inner = name.split(".")
        if not inner:
            plain.pop(place, None)
        elif isinstance(plain.get(place), dict):
            plain[place].pop(inner[0], None)
    return json.dumps(plain, sort_keys=True)


def _executing(schema: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the fields that cannot move the numbers."""
    for item in fields(schema):
        if item.metadata.get("role") == "execution":
            yield f"{prefix}{item.name}"
        elif is_dataclass(item.type):
            yield from _executing(item.type, f"{prefix}{item.name}.")


def making(row: Result) -> tuple[object, ...]:
    """What code and what kind of machine a row comes from."""
    return tuple(of(row) for of in _COMPARED.values())


def _own_notes(filled: FilledTable) -> Iterator[Note]:
    for row in filled.rows:
        if row.row.note:
            yield Note(str(row.number), f"{row.row.label}: {row.row.note}")
    rounding = roundings.note(filled.table)
    if rounding:
        yield Note("", rounding)


def _quoted(filled: FilledTable) -> Iterator[Note]:
    """Where numbers of other papers come from."""
    quoted = [row for row in filled.rows if row.row.kind == "quoted"]
    if quoted:
        sources = _by_source(quoted)
        yield Note(Mark.QUOTED.value, f"quoted as the paper prints it, not run here. {sources}")
    originals = [row for row in filled.rows if row.row.kind == "original"]
    if originals:
        text = "as the method's own authors print it, often on other lists or for longer."
        yield Note(Mark.ORIGINAL.value, f"{text} {_by_source(originals)}")
    known = ("quoted", "original")
    borrowed = [row for row in filled.rows if row.row.kind not in known and row.row.source]
    if borrowed:
        yield Note("", f"Published values that the paper itself took over: {_by_source(borrowed)}")


def _by_source(rows: Iterable[FilledRow]) -> str:
    pairs = dict.fromkeys(f"{row.row.label}: {row.row.source}" for row in rows)
    return "; ".join(pairs) + "."


def _missing(filled: FilledTable) -> Iterator[Note]:
    """How many cells have no result, and how many of those failed."""
    entries = list(filled.entries)
    missing = [entry for entry in entries if not entry.values]
    if not missing:
        return
    failed = sum(bool(entry.failed) for entry in missing)
    text = f"cells without a result: {len(missing)} of {len(entries)}"
    yield Note("--", f"{text} ({failed} failed)." if failed else f"{text}.")


def _marked(filled: FilledTable) -> Iterator[Note]:
    entries = [entry for row in filled.rows for entry in row.entries]
    for mark, text in _EXPLAINED.items():
        if any(mark in entry.marks for entry in entries):
            yield Note(mark.value, text)
    if any(Mark.FEWER_SEEDS in entry.marks for entry in entries):
        yield Note("n", f"over so many seeds only; the others over n = {len(filled.seeds)}.")


def _provenance(filled: FilledTable) -> Iterator[Note]:
    """Which code and machines ours come from; more than one of a kind is a warning."""
    results = [row for entry in filled.entries for row in entry.results]
    if not results:
        return
    kinds = {name: sorted({str(of(row)) for row in results}) for name, of in _COMPARED.items()}
    single = [
        f"{name.removesuffix('s')} {kind[0]}" for name, kind in kinds.items() if len(kind) == 1
    ]
    mixed = [f"{len(k)} {name} ({', '.join(k)})" for name, k in kinds.items() if len(k) > 1]
    if single:
        yield Note("", f"Ours: {', '.join(single)}.")
    if mixed:
        yield Note("", f"Mixed: ours come from {', '.join(mixed)}; compare with care.")
    dirty = len({row.key for row in results if row.git_dirty})
    if dirty:
        yield Note("", f"Runs from a checkout with changes that were not committed: {dirty}.")
