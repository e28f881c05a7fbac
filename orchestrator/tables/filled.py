"""A table filled with results, as every printer takes it: blocks of rows of entries."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from statistics import fmean, stdev
from typing import Literal

from orchestrator.results.counted import is_comparable
from orchestrator.results.seed_design import SeedDesign
from orchestrator.results.store import Row as Result
from sweeps.cell import Cell
from sweeps.table import Table, TableRow

Epoch = Literal["best", "last"]


class Mark(Enum):
    """A sign at an entry or label, explained below the table."""

    QUOTED = "q"
    ORIGINAL = "o"
    DRIFTED = "d"
    MIXED = "m"
    MACHINES = "h"
    FEWER_SEEDS = "s"


@dataclass(frozen=True)
class Note:
    """One line below the table; `mark` is empty when it is about the whole table."""

    mark: str
    text: str


@dataclass(frozen=True)
class TableEntry:
    """One number of a printed table.

    Attributes:
        cell: whose number it is, at the table's own seed; None for quoted and derived rows.
        results: rows behind the number, by seed; for derived rows those of all parts.
        values: the number of each seed, in percent.
        published: what the paper prints.
        failed: number of seeds whose only attempts failed.
        marks: what the reader must know about it; explained in the table's notes.
        apart: rows of further seeds that ran with another configuration or on other data than
            `results`; never averaged with them.
        rank: 1 for the best it is compared with, 2 for the second, None for others.
    """

    cell: Cell | None = None
    results: tuple[Result, ...] = ()
    values: tuple[float, ...] = ()
    published: float | None = None
    failed: int = 0
    marks: tuple[Mark, ...] = ()
    apart: tuple[Result, ...] = ()
    rank: Literal[1, 2] | None = None

    @cached_property
    def mean(self) -> float | None:
        """Mean over seeds; None when nothing has been measured."""
        return fmean(self.values) if self.values else None

    @cached_property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds; None below two."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        if self.mean is None or self.published is None:
            return None
        return self.mean - self.published

    def by_seed(self) -> dict[int, float]:
        """The value of each seed; only for an entry of one cell."""
        return {row.seed: value for row, value in zip(self.results, self.values, strict=True)}

    def paired(self, other: "TableEntry") -> dict[int, tuple[float, float]]:
        """Values of both by seed, where both have one and the two are comparable."""
        mine, theirs = self.by_seed(), other.by_seed()
        rows = {row.seed: row for row in other.results}
        return {
            row.seed: (mine[row.seed], theirs[row.seed])
            for row in self.results
            if row.seed in theirs and is_comparable(row, rows[row.seed])
        }


@dataclass(frozen=True)
class FilledRow:
    """A row of the table with one entry per column.

    Attributes:
        number: of its note below the table; 0 without one.
    """

    row: TableRow
    entries: tuple[TableEntry, ...]
    number: int = 0


@dataclass(frozen=True)
class FilledBlock:
    """A block of the table, filled."""

    label: str
    rows: tuple[FilledRow, ...]


@dataclass(frozen=True, eq=False)  # itself and no other, so that what follows from it is kept
class FilledTable:
    """A table with ours beside the paper's.

    Attributes:
        epoch: which epoch's mIoU the numbers are.
        seeds: seeds that ours are means over.
        notes: what stands below the table.
        design: where the grid's seeds run until settled; its tests then replace all others.
    """

    table: Table
    epoch: Epoch
    seeds: tuple[int, ...]
    blocks: tuple[FilledBlock, ...]
    notes: tuple[Note, ...]
    design: SeedDesign | None = None

    @property
    def rows(self) -> Iterator[FilledRow]:
        """All rows, block after block."""
        return (row for block in self.blocks for row in block.rows)

    @property
    def entries(self) -> Iterator[TableEntry]:
        """All entries of rows that are ours to run."""
        return (e for row in self.rows if row.row.kind == "ours" for e in row.entries)
