"""A name for every number of a table, such as ``table3/321/ipixmatch/resnet50-p1-1of16``.

The same name stands in LaTeX macros, in links of the report and on the command line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.tables.filled import Entry, FilledBlock, FilledRow, FilledTable

_OTHER = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Named:
    """An entry with its name and its place in the table."""

    name: str
    block: FilledBlock
    row: FilledRow
    column: int
    entry: Entry


def named_entries(filled: FilledTable) -> Iterator[Named]:
    """Every entry in print order; two rows that would share a name are numbered."""
    columns = [slug("-".join(map(str, column.values()))) for column in filled.table.columns]
    seen: dict[str, int] = {}
    for block in filled.blocks:
        for row in block.rows:
            parts = [filled.table.name, block.label, row.row.label]
            place = "/".join(slug(part) for part in parts if part)
            seen[place] = seen.get(place, 0) + 1
            number = f"-{seen[place]}" if seen[place] > 1 else ""
            for index, (column, entry) in enumerate(zip(columns, row.entries, strict=True)):
                yield Named(f"{place}{number}/{column}", block, row, index, entry)


def slug(text: str) -> str:
    """A label in small letters, digits and hyphens; a star is spelt, for UniMatch has both."""
    return _OTHER.sub("-", text.lower().replace("*", " star").replace("\u00b2", "2")).strip("-")
