"""The tables of a grid: those it names, and a generated one of the cells in none of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sweeps.cell import Cell, axis_text
from sweeps.grid import Grid
from sweeps.table import Block, Table, TableRow, load_table
from sweeps.yaml_spec import Spec

_PLUS = " + "
_COLUMN_AXES = ("recipe", "split", "backbone", "crop")


def tables_of(grid: Grid) -> tuple[Table, ...]:
    """The tables in print order; cells of a grid without a table get a generated one.

    Raises:
        ValueError: a table of the grid is not there, or has a mistake.
    """
    named = [load_table(name) for name in grid.tables]
    shown = {_group(cell) for table in named for cell in table.cells}
    rest = [cell for cell in _once(grid.cells) if _group(cell) not in shown]
    return (*named, _plain(grid, rest)) if rest else tuple(named)


def _plain(grid: Grid, cells: Sequence[Cell]) -> Table:
    """A generated table: a row per method, a column per combination of the other axes that vary.

    Where some combination was not run, the table has one column and a row per cell instead.
    """
    varying = [axis for axis in _COLUMN_AXES if len({getattr(cell, axis) for cell in cells}) > 1]
    by_place = {(_method(cell), _along(cell, varying)): cell for cell in cells}
    downs = list(dict.fromkeys(down for down, _ in by_place))
    acrosses = list(dict.fromkeys(across for _, across in by_place))
    columns: tuple[Spec, ...]
    if varying and len(downs) * len(acrosses) == len(by_place):
        columns = tuple(dict(zip(varying, across, strict=True)) for across in acrosses)
        rows = [_row(down, [by_place[down, across] for across in acrosses]) for down in downs]
    else:
        columns = ({"number": "mIoU (%)"},)
        rows = [
            _row(" ".join([*map(str, across), down]), [cell])
            for (down, across), cell in by_place.items()
        ]
    return Table(grid.name, grid.title, columns, (Block("", (*rows, *_gains(rows))),))


def _gains(rows: Sequence[TableRow]) -> Iterator[TableRow]:
    """Rows of differences between a method with an inter-pixel loss and the same without it."""
    labels = [row.label for row in rows]
    for label in labels:
        base = label.rpartition(_PLUS)[0]
        if base in labels:
            empty = (None,) * len(rows[0].cells)
            yield TableRow(f"{label}, gain", "difference", (), empty, minus=(label, base))


def _row(label: str, cells: Sequence[Cell]) -> TableRow:
    return TableRow(label, "ours", tuple(cells), published=(None,) * len(cells))


def _method(cell: Cell) -> str:
    method = axis_text(cell.method)
    return method if cell.loss == "none" else f"{method}{_PLUS}{axis_text(cell.loss)}"


def _along(cell: Cell, axes: Sequence[str]) -> tuple[str | int, ...]:
    values = (getattr(cell, axis) for axis in axes)
    return tuple(axis_text(value) if isinstance(value, str) else value for value in values)


def _group(cell: Cell) -> Cell:
    """The cell with seed 0, which stands for all its seeds."""
    return replace(cell, seed=0)


def _once(cells: Sequence[Cell]) -> Iterator[Cell]:
    """The cells, each for its first seed only."""
    seen: set[Cell] = set()
    for cell in cells:
        if _group(cell) not in seen:
            seen.add(_group(cell))
            yield cell
