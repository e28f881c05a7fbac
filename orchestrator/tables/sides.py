"""The tables of a grid, filled once with each of two sets of results that are to be compared."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.wording import did_you_mean_path
from orchestrator.planning.plan import LaunchRequest, chosen_cells
from orchestrator.planning.today import TodaysData, todays
from orchestrator.results.counted import Today, likeness
from orchestrator.results.row import Row
from orchestrator.results.store import state_rows
from orchestrator.storage.root import Root
from orchestrator.tables.fill import fill
from orchestrator.tables.filled import FilledTable
from sweeps.cell import Cell
from sweeps.cell_configs import cell_configs
from sweeps.grid import Grid, load_grid
from sweeps.grid_tables import tables_of


@dataclass(frozen=True)
class Sides:
    """A grid's tables with two sets of results.

    Attributes:
        groups: keys without a seed of the chosen cells.
        here: with the results under the root of the command.
        there: with those that they are compared with.
    """

    grid: Grid
    groups: frozenset[str]
    here: tuple[FilledTable, ...]
    there: tuple[FilledTable, ...]


def filled_sides(request: LaunchRequest, there: Root | str | None) -> Sides:
    """The tables of a grid with the rows that count, on both sides.

    Args:
        request: grid, root and options of this side; `only` chooses cells.
        there: another root, or the beginning of a commit's hash, whose rows are then parted from
            the others of the same root; None where nothing else is read.

    Raises:
        ValueError: unknown grid or setting, no cell fits `only`, or the other side has no row.
    """
    grid = load_grid(request.grid)
    cells = chosen_cells(grid, request.options.only)
    groups = frozenset(_group(cell) for cell in cells)
    here = _rows(request.root, cells, groups)
    other: list[Row] = []
    if isinstance(there, str):
        other = [row for row in here if (row.git_commit or "").startswith(there)]
        if not other:
            raise ValueError(_no_commit(there, here, request.root))
        here = [row for row in here if not (row.git_commit or "").startswith(there)]
    elif there is not None:
        other = _rows(there, cells, groups)
        if not other:
            near = "" if there.costs_requests else did_you_mean_path(Path(there.address))
            raise ValueError(
                f"There is no result of {grid.name} under {there.address}; name another root.{near}"
            )
    tables, epoch = tables_of(grid), request.options.printed_epoch
    sides = []
    for rows in (here, other):
        today = _todays(grid, cells, rows, request.overrides)
        sides.append(tuple(fill(table, rows, epoch=epoch, today=today) for table in tables))
    return Sides(grid, groups, *sides)


def _group(cell: Cell) -> str:
    return cell.key.rpartition(".s")[0]


def _rows(root: Root, cells: Sequence[Cell], groups: frozenset[str]) -> list[Row]:
    return [row for row in state_rows(root, cells) if row.group in groups]


def _no_commit(commit: str, rows: Iterable[Row], root: Root) -> str:
    commits = sorted({(row.git_commit or "unknown")[:10] for row in rows})
    known = f"those there are of {', '.join(commits)}" if commits else "there is none at all"
    return f"No row under {root.address} is of commit {commit}; {known}."


def _todays(
    grid: Grid, cells: Sequence[Cell], rows: Sequence[Row], overrides: Sequence[str]
) -> Mapping[str, Today]:
    """What a row of today has, for the cells where the choice among rows depends on it.

    Rows of one configuration and the same data are of today all together, or not at all. Only where
    a cell has rows of several kinds is its configuration composed, which takes most of the time of
    a comparison.
    """
    kinds: dict[str, set[tuple[str | None, ...]]] = defaultdict(set)
    for row in rows:
        kinds[row.group].add(likeness(row))
    mixed = [cell for cell in cells if overrides or len(kinds[_group(cell)]) > 1]
    settings = [*grid.overrides, *overrides]
    composed = cell_configs(mixed, settings, needs_data=False)
    configs = {cell.key: config for cell, config in composed.items()}
    return todays(configs, rows, TodaysData())
