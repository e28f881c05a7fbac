"""Tables for programs: each entry with its number and the cells behind it, see docs/json.md."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.tables.filled import FilledTable


def tables_json(tables: Sequence[FilledTable], files: Sequence[Path]) -> dict[str, Any]:
    """Tables as plain values.

    Args:
        tables: filled with results.
        files: that were written of them.
    """
    return {
        "tables": [
            {
                "name": filled.table.name,
                "title": filled.table.title,
                "epoch": filled.epoch,
                "seeds": filled.seeds,
                "entries": list(_entries(filled)),
                "notes": [asdict(note) for note in filled.notes],
            }
            for filled in tables
        ],
        "files": [str(path) for path in files],
    }


def _entries(filled: FilledTable) -> Iterator[dict[str, Any]]:
    """Every entry, row after row."""
    for block in filled.blocks:
        for row in block.rows:
            for column, entry in zip(filled.table.columns, row.entries, strict=True):
                yield {
                    "block": block.label,
                    "row": row.row.label,
                    "kind": row.row.kind,
                    "column": {name: str(value) for name, value in column.items()},
                    "ours": entry.mean,
                    "spread": entry.spread,
                    "n": len(entry.values),
                    "paper": entry.published,
                    "difference": entry.difference,
                    "marks": [mark.name.lower() for mark in entry.marks],
                    "keys": [result.key for result in entry.results],
                }
