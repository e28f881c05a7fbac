"""Best and second best, as the paper sets them in bold and underlines them."""

from dataclasses import replace

from orchestrator.tables.filled import Entry, FilledRow
from sweeps.table import Table


def with_places(rows: tuple[FilledRow, ...], table: Table) -> tuple[FilledRow, ...]:
    """The rows of one block with the places of their entries.

    Rows of ours and quoted rows compete, as in the paper; values that print alike share a place.
    Nobody has a place while a cell of ours is still missing, and a second place needs a third.
    """
    entries = {(i, j): entry for i, row in enumerate(rows) for j, entry in enumerate(row.entries)}
    competing = [i for i, row in enumerate(rows) if row.row.kind in ("ours", "quoted")]
    columns = range(len(table.columns))
    if table.best == "down":
        groups = [[(i, j) for i in competing] for j in columns]
    else:
        groups = [[(i, j) for j in columns] for i in competing]
    for group in groups:
        values = [_printed(rows[i], entries[i, j]) for i, j in group]
        complete = all(entries[i, j].values for i, j in group if rows[i].row.kind == "ours")
        if complete and any(rows[i].row.kind == "ours" for i, _ in group):
            rounded = [None if value is None else round(value, table.decimals) for value in values]
            _place(dict(zip(group, rounded, strict=True)), entries)
    return tuple(
        replace(row, entries=tuple(entries[i, j] for j in columns)) for i, row in enumerate(rows)
    )


def _printed(row: FilledRow, entry: Entry) -> float | None:
    return entry.published if row.row.kind == "quoted" else entry.mean


def _place(
    values: dict[tuple[int, int], float | None], entries: dict[tuple[int, int], Entry]
) -> None:
    """Write the places of one comparison into the entries."""
    there = sorted({value for value in values.values() if value is not None}, reverse=True)
    for at, value in values.items():
        if value is not None and value == there[0] and len(values) > 1:
            entries[at] = replace(entries[at], place=1)
        elif value is not None and len(values) > 2 and value == there[1]:
            entries[at] = replace(entries[at], place=2)
