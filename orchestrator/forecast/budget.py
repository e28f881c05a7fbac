"""What a budget or a moment leaves for a launch, and which entries of the tables that buys."""

import math
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from heapq import heapify, heapreplace

from datasets.wording import quantity
from orchestrator.execution.allowance import Allowance
from orchestrator.forecast.forecast import CellForecast, entries_of, held_by
from orchestrator.options import LaunchOptions, seconds_in
from orchestrator.planning.plan import Plan, State

_NAMES_SHOWN = 5  # of the entries that are left


def allowance_of(plan: Plan, cells: Iterable[CellForecast], options: LaunchOptions) -> Allowance:
    """What `budget` and `until` leave for some cells.

    A budget is for the whole grid: what done cells took counts, and of begun ones their part of
    what they are expected to take. So the same command with a larger budget pays only the rest.
    """
    cells = list(cells)
    known = {cell.key: cell.seconds.middle for cell in cells if cell.seconds}
    begun = (
        known[cell.key] * (1.0 - cell.left) / cell.left * cell.held
        for cell in cells
        if cell.key in known and cell.left > 0.0
    )
    return Allowance(
        options.limits,
        budget_seconds=seconds_in(options.budget) or math.inf,
        until=datetime.fromisoformat(options.until).timestamp() if options.until else math.inf,
        seconds=known,
        held={cell.key: cell.held for cell in cells},
        spent=sum(begun) + _taken_by_done(plan, options),
    )


def _taken_by_done(plan: Plan, options: LaunchOptions) -> float:
    """Seconds of the done cells, times the GPUs or cores that they held."""
    rows = [(cell, cell.row) for cell in plan.cells if cell.state is State.done and cell.row]
    return sum(
        row.gpu_seconds or (row.seconds or 0.0) * held_by(cell.config, options)
        for cell, row in rows
    )


def bought(cells: Sequence[CellForecast], allowance: Allowance, slots: int) -> list[str]:
    """Keys of the cells that fit, in the order in which they start; none of unknown length.

    Args:
        cells: in the order of the launch.
        allowance: what is left; it is used up here.
        slots: cells at once.
    """
    keys = []
    free = [0.0] * slots  # seconds from now on
    heapify(free)
    for cell in cells:
        if cell.seconds is not None and allowance.fits(cell.key, after=free[0]):
            heapreplace(free, free[0] + cell.seconds.middle)
            allowance.spent += cell.seconds.middle * cell.held
            keys.append(cell.key)
    return keys


def entries_text(plan: Plan, done: Collection[str], word: str) -> list[str]:
    """A line for each table: how many of its entries are complete with some cells, and the rest.

    Args:
        plan: the states.
        done: keys of these cells.
        word: what to say of entries that are complete.
    """
    lines = []
    for name, (complete, left) in entries_of(plan, done).items():
        more = f" and {len(left) - _NAMES_SHOWN} more" if len(left) > _NAMES_SHOWN else ""
        rest = f"; left: {', '.join(left[:_NAMES_SHOWN])}{more}" if left else ""
        total = len(complete) + len(left)
        lines.append(
            f"{name}: {len(complete)} of {quantity(total, 'entry', 'entries')} {word}{rest}"
        )
    return lines
