"""Tables as CSV in long form: one line per entry, with everything that leads back to its runs."""

import csv
import io

from orchestrator.tables.filled import Entry, FilledRow, FilledTable

HEAD = (
    "table",
    "block",
    "row",
    "kind",
    "column",
    "recipe",
    "split",
    "backbone",
    "crop",
    "method",
    "loss",
    "epoch",
    "n",
    "ours",
    "spread",
    "paper",
    "difference",
    "source",
    "marks",
    "keys",
    "attempts",
    "fingerprints",
    "weights_sha256",
    "git_commits",
)


def long_form(filled: FilledTable) -> str:
    """The whole table; numbers in full precision, lists separated by spaces."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)
    for block in filled.blocks:
        for row in block.rows:
            for column, entry in zip(filled.table.columns, row.entries, strict=True):
                head = " ".join(str(value) for value in column.values())
                place = [filled.table.name, block.label, row.row.label, row.row.kind, head]
                writer.writerow([*place, *_axes(entry), filled.epoch, *_rest(filled, row, entry)])
    return out.getvalue()


def _axes(entry: Entry) -> list[str | int]:
    cell = entry.cell
    if cell is None:
        return [""] * 6
    return [cell.recipe, cell.split, cell.backbone, cell.crop, cell.method, cell.loss]


def _rest(filled: FilledTable, row: FilledRow, entry: Entry) -> list[str | int | float | None]:
    best = filled.epoch == "best"
    weights = [r.best_weights_sha256 if best else r.weights_sha256 for r in entry.results]
    return [
        len(entry.values),
        entry.mean,
        entry.spread,
        entry.published,
        entry.difference,
        row.row.source,
        " ".join(mark.value for mark in entry.marks),
        " ".join(r.key for r in entry.results),
        " ".join(str(r.attempt) for r in entry.results),
        " ".join(r.fingerprint for r in entry.results),
        " ".join(sha or "-" for sha in weights),
        " ".join(r.git_commit or "-" for r in entry.results),
    ]
