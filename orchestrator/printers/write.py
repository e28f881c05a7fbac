"""Writes filled tables to files, each whole or not at all."""

import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from orchestrator.printers.csv import long_form
from orchestrator.printers.html import document, html
from orchestrator.printers.latex import latex
from orchestrator.printers.markdown import markdown
from orchestrator.printers.numbers import numbers
from orchestrator.results.store import Row
from orchestrator.statistics import text as wording
from orchestrator.tables.fill import fill
from orchestrator.tables.filled import Epoch, FilledTable
from sweeps.table import Table

_PRINTERS: dict[str, Callable[[FilledTable], str]] = {
    ".md": markdown,
    ".tex": latex,
    ".csv": long_form,
    ".html": lambda filled: document(filled.table.title, html(filled)),
    "_numbers.tex": numbers,
    "_statistics.md": wording.markdown,
    "_statistics.csv": wording.long_form,
}


def write_tables(
    tables: Iterable[Table],
    rows: Iterable[Row],
    out_dir: Path,
    *,
    epoch: Epoch = "best",
    seeds: Iterable[int] | None = None,
    expected: Mapping[str, str] | None = None,
) -> list[Path]:
    """Print each table as Markdown, LaTeX, CSV and HTML, with its statistics beside it.

    Args:
        tables: what to print.
        rows: all results there are.
        out_dir: folder for ``<name>.md`` and so on; made if missing.
        epoch: "best" or "last".
        seeds: which to average; None takes all there are.
        expected: today's fingerprint by cell key, see `fill`.

    Returns:
        The files, in the order of the tables.
    """
    listed = list(rows)
    chosen = None if seeds is None else tuple(seeds)
    return write_filled(
        (fill(table, listed, epoch=epoch, seeds=chosen, expected=expected) for table in tables),
        out_dir,
    )


def write_filled(tables: Iterable[FilledTable], out_dir: Path) -> list[Path]:
    """Print tables that are filled already; see `write_tables`."""
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for filled in tables:
        for suffix, printer in _PRINTERS.items():
            paths.append(out_dir / f"{filled.table.name}{suffix}")
            replace_file(paths[-1], printer(filled))
    return paths


def replace_file(path: Path, text: str) -> None:
    """A reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
