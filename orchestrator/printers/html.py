"""Tables in HTML: the data of the templates in `printers/templates`, which hold the markup."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.tables.filled import FilledRow, FilledTable
from orchestrator.tables.text import (
    MISSING,
    NamedEntry,
    Shown,
    caption,
    has_block_labels,
    label,
    legend,
    named_entries,
    shown,
    slug,
)

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

LinkOf = Callable[[NamedEntry], str | None]
Marks = list[tuple[str, str]]  # id of a note, and the mark that links to it

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class HeadCell:
    """A cell of the table's head."""

    text: str
    scope: str = "col"
    kind: str = ""
    rows: int = 1
    columns: int = 1


@dataclass(frozen=True)
class BodyCell:
    """An entry as it is shown, with the address of its origin."""

    shown: Shown
    link: str | None
    marks: Marks


@dataclass(frozen=True)
class BodyRow:
    """A row with its label."""

    kind: str
    label: str
    marks: Marks
    entries: list[BodyCell]


def html(filled: FilledTable, link_of: LinkOf = lambda _: None) -> "Markup":
    """The table with caption and notes, a fragment to put into a page.

    Args:
        filled: the table.
        link_of: address of the origin of a number; None for no link.
    """
    from markupsafe import Markup

    names = named_entries(filled)
    blocks = [
        {"label": block.label, "rows": [_row(filled, row, names, link_of) for row in block.rows]}
        for block in filled.blocks
    ]
    notes = [
        {
            "id": "" if note.mark in ("", MISSING) else _note_id(filled, note.mark),
            "mark": note.mark,
            "text": note.text,
        }
        for note in filled.notes
    ]
    text = (
        environment()
        .get_template("table.html")
        .render(
            name=slug(filled.table.name),
            caption=caption(filled),
            legend=legend(filled, "second line"),
            heads=_heads(filled),
            blocks=blocks,
            notes=notes,
            has_block_labels=has_block_labels(filled),
            num_columns=len(filled.table.columns),
            missing=MISSING,
        )
    )
    return Markup(text)


def html_document(title: str, body: "Markup") -> str:
    """A small page of its own around a fragment."""
    return environment().get_template("document.html").render(title=title, body=body)


@cache
def environment(*folders: Path) -> "Environment":
    """Templates of these folders and of this package; what they print is escaped.

    jinja2 is imported here and not above: a plan or a status prints no HTML.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name is an error, and not an empty text
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["minus"] = minus
    return made


def minus(number: str) -> "str | Markup":
    """A number whose hyphen is a minus sign."""
    from markupsafe import Markup

    if number[:1] == "-" and number[1:2].isdigit():
        return Markup("&minus;") + number[1:]
    return number


def _heads(filled: FilledTable) -> list[list[HeadCell]]:
    """One line per axis; outer axes span the columns they share."""
    heads = filled.table.heads()
    lines = []
    for depth, head in enumerate(heads):
        cells = []
        if depth == 0:
            if has_block_labels(filled):
                cells.append(HeadCell("Block", kind="text block", rows=len(heads)))
            corner = filled.table.corner or "Method"
            cells.append(HeadCell(corner, kind="text", rows=len(heads)))
        is_innermost = depth == len(heads) - 1
        for _, same in groupby(range(len(head)), key=lambda i: _path(heads, i, depth)):
            span = list(same)
            scope = "col" if is_innermost else "colgroup"
            cells.append(HeadCell(head[span[0]], scope, columns=len(span)))
        lines.append(cells)
    return lines


def _path(heads: tuple[tuple[str, ...], ...], column: int, depth: int) -> tuple[str, ...]:
    """Labels of a column from the outermost axis down; the innermost never joins its neighbour."""
    own = (str(column),) if depth == len(heads) - 1 else ()
    return tuple(head[column] for head in heads[: depth + 1]) + own


def _row(
    filled: FilledTable, row: FilledRow, names: Iterator[NamedEntry], link_of: LinkOf
) -> BodyRow:
    """A row; takes the names of its entries off `names`."""
    text, marks = label(row)
    entries = [
        BodyCell(words, link_of(next(names)), _marks(filled, words.marks))
        for words in shown(row, filled.table.decimals)
    ]
    return BodyRow(row.row.kind, text, _marks(filled, marks), entries)


def _marks(filled: FilledTable, marks: str) -> Marks:
    return [(_note_id(filled, mark), mark) for mark in marks.split(",") if mark]


def _note_id(filled: FilledTable, mark: str) -> str:
    return f"note-{slug(filled.table.name)}-{slug(mark.partition('=')[0])}"
