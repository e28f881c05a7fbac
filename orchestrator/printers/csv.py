"""Tables as CSV in long form: one line per entry, with everything that leads back to its runs."""

from collections.abc import Iterable

from orchestrator.tables.filled import FilledRow, FilledTable, TableEntry

_HEAD = (
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


def table_csv(filled: FilledTable) -> str:
    """The whole table; numbers in full precision, lists separated by spaces."""
    lines = [_line(_HEAD)]
    for block in filled.blocks:
        for row in block.rows:
            for column, entry in zip(filled.table.columns, row.entries, strict=True):
                head = " ".join(str(value) for value in column.values())
                names = [filled.table.name, block.label, row.row.label, row.row.kind, head]
                lines.append(
                    _line([*names, *_axes(entry), filled.epoch, *_rest(filled, row, entry)])
                )
    return "".join(lines)


def _line(values: Iterable[str | int | float | None]) -> str:
    """A line of CSV; the csv module is slow on long texts, such as lists over many seeds."""
    texts = ("" if value is None else str(value) for value in values)
    return ",".join(map(_quoted, texts)) + "\n"


def _quoted(text: str) -> str:
    if any(letter in text for letter in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _axes(entry: TableEntry) -> list[str | int]:
    cell = entry.cell
    if cell is None:
        return [""] * 6
    return [cell.recipe, cell.split, cell.backbone, cell.crop, cell.method, cell.loss]


def _rest(filled: FilledTable, row: FilledRow, entry: TableEntry) -> list[str | int | float | None]:
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
