"""The text of a table's numbers, labels and caption, for all printers.

Every number has a name, such as ``table3/321/ipixmatch/resnet50-p1-1of16``: the same in LaTeX
macros, in links of the report and on the command line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from datasets.wording import quantity
from orchestrator.tables.filled import FilledBlock, FilledRow, FilledTable, Mark, TableEntry

MISSING = "--"  # ours, and not there
DASH = "-"  # printed as a dash by the paper, or without meaning

_MARKDOWN = re.compile(r"([\\`*_|<>\[\]#~&$])")
_LINE_START = re.compile(r"^(\s*\d*)([-+=.)])")  # a list, or the line under a heading


@dataclass(frozen=True)
class Shown:
    """One entry as text.

    Attributes:
        main: our number, or the quoted one.
        spread: of the seeds, without the sign; empty for one seed.
        paper: the paper's number beside ours; empty where there is none.
        difference: ours minus the paper's, signed; empty where there is none.
        style: how `main` is set.
        marks: letters of the notes that belong to it.
    """

    main: str
    spread: str = ""
    paper: str = ""
    difference: str = ""
    style: Literal["plain", "best", "second", "gain"] = "plain"
    marks: str = ""


def shown(row: FilledRow, decimals: int) -> list[Shown]:
    """The entries of a row as they are printed."""
    return [
        _shown(row, entry, decimals=decimals, is_baseline=column == row.row.baseline)
        for column, entry in enumerate(row.entries)
    ]


def signed(value: float, decimals: int) -> str:
    """A difference with its sign; zero after rounding has none."""
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text


def label(row: FilledRow) -> tuple[str, str]:
    """Text of a row's label and its marks: whether it is quoted, and the number of its note."""
    letters = {"quoted": Mark.QUOTED.value, "original": Mark.ORIGINAL.value}
    marks = [letters[row.row.kind]] if row.row.kind in letters else []
    return row.row.label, ",".join([*marks, *([str(row.number)] if row.number else [])])


def caption(filled: FilledTable) -> str:
    """The title, what the numbers are, and over how many seeds."""
    seeds = ", ".join(map(str, filled.seeds))
    over = (
        f"seed {seeds}"
        if len(filled.seeds) == 1
        else f"mean and sample deviation over n = {quantity(len(filled.seeds), 'seed')} ({seeds})"
    )
    if not any(entry.results for row in filled.rows for entry in row.entries):
        over = "no result yet"
    return f"{filled.table.title}. mIoU (%) at the {filled.epoch} epoch, {over}."


def legend(filled: FilledTable, where: str) -> str:
    """How the printed styles read.

    Args:
        filled: the table.
        where: the paper's values stand in this print, such as "in brackets".
    """
    parts = ["Bold: best", "underlined: second"]
    if any(row.row.kind in ("difference", "average") for row in filled.rows):
        parts.append("italics: difference")
    if filled.table.is_published:
        parts.append(f"{where}: the paper's value and ours minus the paper's")
    return "; ".join(parts) + "."


def markdown_text(text: str) -> str:
    """Text that Markdown prints as it stands, also at the start of a line."""
    return _LINE_START.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\1", text))


def has_block_labels(filled: FilledTable) -> bool:
    """Whether the blocks are named in a column of their own."""
    return any(block.label for block in filled.blocks)


def _shown(row: FilledRow, entry: TableEntry, *, decimals: int, is_baseline: bool) -> Shown:
    kind = row.row.kind
    if kind in ("quoted", "original"):
        value = entry.published
        main = DASH if value is None else f"{value:.{decimals}f}"
        return Shown(main, style=_style(entry))
    marks = _marks(entry)
    spread = "" if entry.spread is None else f"{entry.spread:.{decimals}f}"
    if kind == "ours":
        main = MISSING if entry.mean is None else f"{entry.mean:.{decimals}f}"
        paper = "" if entry.published is None else f"{entry.published:.{decimals}f}"
        gap = "" if entry.difference is None else signed(entry.difference, decimals)
        return Shown(main, spread, paper, gap, _style(entry), marks)
    if is_baseline:
        return Shown(DASH)
    main = MISSING if entry.mean is None else signed(entry.mean, decimals)
    paper = "" if entry.published is None else signed(entry.published, decimals)
    return Shown(main, spread, paper, "", "gain", marks)


def _marks(entry: TableEntry) -> str:
    """Letters of the marks; that of fewer seeds is their number."""
    letters = [mark.value for mark in entry.marks if mark is not Mark.FEWER_SEEDS]
    if Mark.FEWER_SEEDS in entry.marks:
        letters.append(f"n={len(entry.values)}")
    return ",".join(letters)


def _style(entry: TableEntry) -> Literal["plain", "best", "second"]:
    if entry.rank is None:
        return "plain"
    return "best" if entry.rank == 1 else "second"


_OTHER = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class NamedEntry:
    """An entry with its name, block, row and column."""

    name: str
    block: FilledBlock
    row: FilledRow
    column: int
    entry: TableEntry


def named_entries(filled: FilledTable) -> Iterator[NamedEntry]:
    """Every entry in print order; two rows that would share a name are numbered."""
    columns = [slug("-".join(map(str, column.values()))) for column in filled.table.columns]
    seen: dict[str, int] = {}
    for block in filled.blocks:
        for row in block.rows:
            parts = [filled.table.name, block.label, row.row.label]
            prefix = "/".join(slug(part) for part in parts if part)
            seen[prefix] = seen.get(prefix, 0) + 1
            number = f"-{seen[prefix]}" if seen[prefix] > 1 else ""
            for index, (column, entry) in enumerate(zip(columns, row.entries, strict=True)):
                yield NamedEntry(f"{prefix}{number}/{column}", block, row, index, entry)


def slug(text: str) -> str:
    """A label in small letters, digits and hyphens; a star is spelt out, as in UniMatch*."""
    return _OTHER.sub("-", text.lower().replace("*", " star").replace("\u00b2", "2")).strip("-")
