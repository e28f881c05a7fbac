"""Fills a table with results: means, spreads, differences, and the rows behind each number."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, count
from statistics import fmean

from orchestrator.results.counted import (
    Likeness,
    Today,
    counted,
    data_of,
    differences,
    is_comparable,
    is_of_today,
    likeness,
)
from orchestrator.results.seed_design import SeedDesign
from orchestrator.results.store import Row as Result
from orchestrator.tables.filled import Epoch, FilledBlock, FilledRow, FilledTable, Mark, TableEntry
from orchestrator.tables.notes import making, notes_of
from sweeps.cell import Cell
from sweeps.grid import DEFAULT_SEEDS
from sweeps.table import Table, TableRow


def with_ranks(rows: tuple[FilledRow, ...], table: Table) -> tuple[FilledRow, ...]:
    """The rows of one block with the ranks of their entries: 1 is the best, 2 the second.

    Our rows and quoted rows are compared, as in the paper; values that print alike share a rank.
    There are no ranks while a cell of ours is missing or the cells of one split ran on different
    data, and a second rank needs a third value.
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
        ours = [entries[i, j] for i, j in group if rows[i].row.kind == "ours"]
        complete = all(entry.values for entry in ours) and _is_comparable(ours)
        if complete and any(rows[i].row.kind == "ours" for i, _ in group):
            rounded = [None if value is None else round(value, table.decimals) for value in values]
            _rank(dict(zip(group, rounded, strict=True)), entries)
    return tuple(
        replace(row, entries=tuple(entries[i, j] for j in columns)) for i, row in enumerate(rows)
    )


def _is_comparable(entries: Sequence[TableEntry]) -> bool:
    """Whether the entries of each data set and split is of the same data and first weights."""
    distinct: dict[tuple[str, str], dict[tuple[str | None, ...], Result]] = {}
    for row in (row for entry in entries for row in entry.results):
        states = distinct.setdefault((row.recipe, row.split), {})
        kind = data_of(row), row.split_checksum, row.backbone, row.pretrained_sha256
        states.setdefault(kind, row)
    # All pairs: a row of which something is not known agrees with rows that differ in it.
    pairs = (pair for states in distinct.values() for pair in combinations(states.values(), 2))
    return all(is_comparable(*pair) for pair in pairs)


def _printed(row: FilledRow, entry: TableEntry) -> float | None:
    return entry.published if row.row.kind == "quoted" else entry.mean


def _rank(
    values: dict[tuple[int, int], float | None], entries: dict[tuple[int, int], TableEntry]
) -> None:
    """Write the ranks of one comparison into the entries."""
    there = sorted({value for value in values.values() if value is not None}, reverse=True)
    for at, value in values.items():
        if value is not None and value == there[0] and len(values) > 1:
            entries[at] = replace(entries[at], rank=1)
        elif value is not None and len(values) > 2 and value == there[1]:
            entries[at] = replace(entries[at], rank=2)


def fill(
    table: Table,
    rows: Iterable[Result],
    *,
    epoch: Epoch = "best",
    seeds: Collection[int] | None = None,
    today: Mapping[str, Today] | None = None,
    design: SeedDesign | None = None,
) -> FilledTable:
    """The table with the results of its cells.

    Args:
        table: what to print.
        rows: all rows there are; the ones that count are chosen here.
        epoch: "best" on the validation set, or the "last".
        seeds: which to average; None takes every seed that a cell of the table has a result of.
        today: what a result must agree with, by cell key; another one is marked as drifted.
        design: of the grid, where its seeds run until settled.
    """
    groups, today = {_group(cell) for cell in table.cells}, today or {}
    results = list(counted((row for row in rows if row.group in groups), today).values())
    if seeds is None:
        seeds = {row.seed for row in results if _value(row, epoch) is not None} or DEFAULT_SEEDS
    filler = _Filler(results, tuple(sorted(seeds)), epoch=epoch, today=today)
    blocks = tuple(
        FilledBlock(block.label, with_ranks(filler.block(block.rows), table))
        for block in table.blocks
    )
    blocks = _with_numbers((*_with_averages(blocks), *_originals(table)))
    filled = FilledTable(table, epoch, tuple(sorted(seeds)), blocks, (), design)
    return replace(filled, notes=notes_of(filled, today))


def _originals(table: Table) -> tuple[FilledBlock, ...]:
    """The numbers of other papers as these print them, as a last block."""
    if table.originals is None:
        return ()
    rows = tuple(
        FilledRow(row, tuple(TableEntry(published=published) for published in row.published))
        for row in table.originals.rows
    )
    return (FilledBlock(table.originals.label, rows),)


def _with_numbers(blocks: tuple[FilledBlock, ...]) -> tuple[FilledBlock, ...]:
    """Number the notes of rows in print order."""
    numbers = count(1)
    return tuple(
        replace(
            block,
            rows=tuple(replace(r, number=next(numbers)) if r.row.note else r for r in block.rows),
        )
        for block in blocks
    )


class _Filler:
    """Makes the table entries of one table from its results."""

    def __init__(
        self,
        results: Sequence[Result],
        seeds: tuple[int, ...],
        *,
        epoch: Epoch,
        today: Mapping[str, Today],
    ) -> None:
        self._results = {(row.group, row.seed): row for row in results}
        self._seeds = seeds
        self._epoch: Epoch = epoch
        self._today = today

    def block(self, rows: Sequence[TableRow]) -> tuple[FilledRow, ...]:
        """Rows of a block; averages stay empty until all blocks are there."""
        filled: dict[str, FilledRow] = {}
        for row in rows:
            if row.kind == "difference" and row.minus is not None:
                new, base = (filled[label].entries for label in row.minus)
                entries = tuple(
                    _difference(a, b, published)
                    for a, b, published in zip(new, base, row.published, strict=True)
                )
            elif row.kind == "ours":
                entries = tuple(map(self._entry, row.cells, row.published))
            else:
                entries = tuple(TableEntry(published=published) for published in row.published)
            filled[row.label] = FilledRow(row, entries)
        return tuple(filled.values())

    def _entry(self, cell: Cell, published: float | None) -> TableEntry:
        group = _group(cell)
        rows = [self._results.get((group, seed)) for seed in self._seeds]
        there = [row for row in rows if row is not None]
        measured = [row for row in there if _value(row, self._epoch) is not None]
        results = self._averaged(measured)
        seeds = {row.seed for row in results}
        apart = tuple(row for row in measured if row.seed not in seeds)
        values = (_value(row, self._epoch) for row in results)
        return TableEntry(
            cell=cell,
            results=results,
            values=tuple(value for value in values if value is not None),
            published=published,
            failed=len(there) - len(measured),
            marks=self._marks(results, apart),
            apart=apart,
        )

    def _averaged(self, rows: Sequence[Result]) -> tuple[Result, ...]:
        """The rows of one configuration and one state of the data: today's, else the most."""
        alike: list[tuple[list[Result], dict[Likeness, Result]]] = []
        for row in rows:
            # One row of each likeness stands for all: thousands of seeds have few.
            homes = (g for g in alike if not any(differences(row, r) for r in g[1].values()))
            home = next(homes, None)
            if home is None:
                home = ([], {})
                alike.append(home)
            home[0].append(row)
            home[1].setdefault(likeness(row), row)

        def rank(group: Sequence[Result]) -> tuple[int, int]:
            return sum(is_of_today(row, self._today) for row in group), len(group)

        largest = max((group for group, _ in alike), key=rank, default=[])
        return tuple(largest)

    def _marks(self, results: Sequence[Result], apart: Sequence[Result]) -> tuple[Mark, ...]:
        marks: list[Mark] = []
        if not all(is_of_today(row, self._today) for row in results):
            marks.append(Mark.DRIFTED)
        if apart:
            marks.append(Mark.MIXED)
        if 0 < len(results) < len(self._seeds):
            marks.append(Mark.FEWER_SEEDS)
        return _with_machines(tuple(marks), results)


def _group(cell: Cell) -> str:
    """The cell's key without its seed."""
    return cell.key.rpartition(".s")[0]


def _value(row: Result, epoch: Epoch) -> float | None:
    if row.status != "done":
        return None
    return row.best_miou_percent if epoch == "best" else row.last_miou_percent


def _difference(new: TableEntry, base: TableEntry, published: float | None) -> TableEntry:
    """The entry of a difference; seed by seed, so that what runs of one seed share cancels out."""
    values = tuple(_gains(new, base).values())
    results = new.results + base.results if values else ()
    marks = _with_machines(_joined([new, base]), results) if values else ()
    if len(values) < len(set(new.by_seed()) & set(base.by_seed())):
        marks = tuple(mark for mark in Mark if mark in (*marks, Mark.MIXED))
    return TableEntry(results=results, values=values, published=published, marks=marks)


def _with_machines(marks: tuple[Mark, ...], results: Sequence[Result]) -> tuple[Mark, ...]:
    """The marks, with one more where the runs come from different code or machines."""
    if Mark.MACHINES in marks or len({making(row) for row in results}) < 2:
        return marks
    return tuple(mark for mark in Mark if mark in (*marks, Mark.MACHINES))


def _with_averages(blocks: tuple[FilledBlock, ...]) -> tuple[FilledBlock, ...]:
    """Fill the average rows, which are over our rows of all blocks."""
    ours = [row for block in blocks for row in block.rows if row.row.kind == "ours"]
    return tuple(
        replace(
            block,
            rows=tuple(_average(r, ours) if r.row.kind == "average" else r for r in block.rows),
        )
        for block in blocks
    )


def _average(average: FilledRow, ours: Sequence[FilledRow]) -> FilledRow:
    """Mean gain of each column over the baseline column, seed by seed, over all rows of ours."""
    baseline = average.row.baseline
    assert baseline is not None
    entries = []
    for column, published in enumerate(average.row.published):
        if column == baseline:
            entries.append(TableEntry(published=published))
            continue
        pairs = [(row.entries[column], row.entries[baseline]) for row in ours]
        gains = [_gains(new, base) for new, base in pairs]
        common = sorted(set.intersection(*(set(gain) for gain in gains))) if gains else []
        values = tuple(fmean(gain[seed] for gain in gains) for seed in common)
        parts = [entry for pair in pairs for entry in pair] if values else []
        results = tuple(row for entry in parts for row in entry.results)
        marks = _with_machines(_joined(parts), results)
        entries.append(TableEntry(None, results, values, published, marks=marks))
    return replace(average, entries=tuple(entries))


def _gains(new: TableEntry, base: TableEntry) -> dict[int, float]:
    return {seed: one - other for seed, (one, other) in new.paired(base).items()}


def _joined(entries: Sequence[TableEntry]) -> tuple[Mark, ...]:
    return tuple(mark for mark in Mark if any(mark in entry.marks for entry in entries))
