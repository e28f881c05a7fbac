"""Rows and epochs as CSV, for spreadsheets."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.exporters.runs import ExportedRun
from orchestrator.result_schema import HISTORY_SCHEMA, SCHEMA
from orchestrator.tables.write import replace_file


def export_csv(runs: Iterable[ExportedRun], folder: Path) -> list[Path]:
    """Write rows.csv, one line per run, and history.csv, one line per epoch.

    Returns:
        The two files.
    """
    listed = list(runs)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{name: getattr(run.row, name) for name in SCHEMA.names} for run in listed]
    epochs = [line for run in listed for line in run.epochs]
    paths = [folder / "rows.csv", folder / "history.csv"]
    replace_file(paths[0], _text(SCHEMA.names, rows))
    replace_file(paths[1], _text(HISTORY_SCHEMA.names, epochs))
    return paths


def _text(names: Sequence[str], lines: Iterable[dict[str, Any]]) -> str:
    """CSV with a head; lists are joined by `;`, what is missing is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(line[name]) for name in names] for line in lines)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return ";".join("" if item is None else str(item) for item in value)
    return value
