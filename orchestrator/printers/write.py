"""Writes filled tables to files, each whole or not at all."""

from collections.abc import Callable, Iterable
from pathlib import Path

from datasets.files import atomic_write
from orchestrator.printers.csv import table_csv
from orchestrator.printers.html import html, html_document
from orchestrator.printers.latex import latex
from orchestrator.printers.markdown import markdown
from orchestrator.printers.numbers import numbers
from orchestrator.statistics.text import comparisons_csv, comparisons_markdown
from orchestrator.tables.filled import FilledTable

_PRINTERS: dict[str, Callable[[FilledTable], str]] = {
    ".md": markdown,
    ".tex": latex,
    ".csv": table_csv,
    ".html": lambda filled: html_document(filled.table.title, html(filled)),
    "_numbers.tex": numbers,
    "_statistics.md": comparisons_markdown,
    "_statistics.csv": comparisons_csv,
}


def write_filled(tables: Iterable[FilledTable], out_dir: Path) -> list[Path]:
    """Print each table as Markdown, LaTeX, CSV and HTML, with its statistics beside it.

    Args:
        tables: filled with results.
        out_dir: folder for ``<name>.md`` and so on; made if missing.

    Returns:
        The files, in the order of the tables.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for filled in tables:
        for suffix, printer in _PRINTERS.items():
            paths.append(out_dir / f"{filled.table.name}{suffix}")
            atomic_write(paths[-1], printer(filled), durable=True)
    return paths
