"""The cells of a grid in a terminal: the interesting ones first, in the width there is."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.display.format import (
    STYLES,
    cells_text,
    clock,
    fraction,
    gibibytes,
    percent,
    speed,
)
from orchestrator.planning.plan import Plan, PlannedCell, State
from orchestrator.storage.run_state import Progress
from trainer.config.schema import Track


def plan_picture(
    plan: Plan,
    chosen: Collection[str],
    needs: Mapping[str, float | None] | None = None,
    *,
    most: int | None = None,
) -> RenderableType:
    """What would run, and why, in the grid's order.

    Args:
        plan: the states.
        chosen: keys of the cells that a launch would run.
        needs: GiB that a rank needs on its card, by key; None where no card is asked for.
        most: how many cells to show, see `status_picture`; None shows all.
    """
    memory = () if needs is None else ("GiB a card",)
    table = _table(plan, "cell", "state", "runs", "estimate", *memory, "why")
    shown = {cell.key for cell in _chosen(plan.cells, most)}
    for cell in plan.cells:
        if cell.key not in shown:
            continue
        runs = "yes" if cell.key in chosen else ""
        gib = () if needs is None else (gibibytes(needs[cell.key]),)
        table.add_row(cell.key, _state(cell), runs, clock(cell.seconds), *gib, Text(cell.why))
    return Group(table, *_rest([cell for cell in plan.cells if cell.key not in shown]))


def cost_table(plan: Plan, chosen: Collection[str]) -> Table:
    """What the cells of each method cost; the arguments as for `plan_picture`.

    A pass is one image forward and back; the estimate is of all cells that would run.
    """
    table = Table(box=None, header_style="bold")
    table.add_column("method")
    for name in ("cells", "runs", "passes a step", "estimate"):
        table.add_column(name, justify="right")
    cells: dict[str, list[PlannedCell]] = {}
    for cell in plan.cells:
        cells.setdefault(cell.config.method.name, []).append(cell)
    for method, own in cells.items():
        running = [cell for cell in own if cell.key in chosen]
        seconds = [cell.seconds for cell in running if cell.seconds is not None]
        total = sum(seconds) if len(seconds) == len(running) else None
        config = own[0].config
        passes = f"{config.batch * config.method.facts.passes:.1f}"
        table.add_row(method, str(len(own)), str(len(running)), passes, clock(total))
    return table


def counts(plan: Plan) -> str:
    """One line: how many cells are in which state, and on which track unless it is the common."""
    present = [(state, plan.count(state)) for state in State]
    text = ", ".join(f"{number} {state.value}" for state, number in present if number)
    released = sum(cell.config.method.track is Track.released for cell in plan.cells)
    track = f" ({released} of track=released)" if released else ""
    return f"{plan.grid.name}: {cells_text(len(plan.cells))}{track}: {text}"


def plan_json(
    plan: Plan,
    chosen: Collection[str],
    needs: Mapping[str, float | None] | None = None,
    *,
    more: Mapping[str, Any] | None = None,
) -> str:
    """Everything the tables show, for programs; the arguments are those of `plan_picture`.

    `more` is put beside the cells.
    """
    progress = progress_of(plan, plan.cells)
    cells = [_plain(cell, progress[cell.key], runs=cell.key in chosen) for cell in plan.cells]
    if needs is not None:
        cells = [cell | {"gib_per_rank": needs[cell["key"]]} for cell in cells]
    facts = {"grid": plan.grid.name, "counts": plan.counts(), "cells": cells}
    return json.dumps({**facts, **(more or {})}, indent=1)


def progress_of(plan: Plan, cells: Iterable[PlannedCell]) -> dict[str, Progress]:
    """How far some cells are, by key; an empty progress for missing and drifted ones."""
    shown = list(cells)
    # Of done cells the row says all; another attempt may lie in the run directory by now.
    ended = (State.missing, State.drifted, State.done)
    progress = plan.root.progress([cell.key for cell in shown if cell.state not in ended])
    return {cell.key: progress.get(cell.key) or _of_row(cell) for cell in shown}


def miou(cell: PlannedCell, progress: Progress) -> float | None:
    """The best mIoU of a done cell, the last one of a running cell."""
    if cell.row is not None and cell.row.status == "done":
        return cell.row.best_miou_percent
    return progress.miou_percent


def where(cell: PlannedCell) -> str:
    """Who runs the cell, or where it ran."""
    if cell.owner is not None:
        return f"{cell.owner.host}:{cell.owner.pid}"
    if cell.job is not None:
        return f"Slurm {cell.job.job_id}"
    return (cell.row.host or "") if cell.row is not None else ""


def _of_row(cell: PlannedCell) -> Progress:
    """The progress of a cell that is done."""
    row = cell.row
    if cell.state is not State.done or row is None:
        return Progress()
    steps, epochs = row.steps or 0, row.epochs or 0
    return Progress(step=steps, total_steps=steps, epoch=epochs, epochs=epochs)


def _plain(cell: PlannedCell, progress: Progress, *, runs: bool) -> dict[str, Any]:
    return {
        "key": cell.key,
        "state": cell.state.value,
        "why": cell.why,
        "runs": runs,
        "changed": list(cell.changed),
        "fingerprint": cell.fingerprint,
        "track": cell.config.method.track.value,
        "estimated_seconds": cell.seconds,
        "step": progress.step,
        "total_steps": progress.total_steps,
        "epoch": progress.epoch,
        "epochs": progress.epochs,
        "work": progress.work if cell.state is State.running else "",
        "miou_percent": miou(cell, progress),
        "images_per_second": progress.images_per_second,
        "seconds_left": progress.seconds_left if cell.state is State.running else None,
        "where": where(cell),
        "job": None if cell.job is None else asdict(cell.job),
    }


def _table(plan: Plan, *names: str) -> Table:
    table = Table(title=plan.grid.title, title_justify="left", box=None, header_style="bold")
    for name in names:
        is_text = name in ("cell", "state", "where", "why", "runs")
        # A key is never cut: people copy it. The reason gives way instead.
        table.add_column(
            name,
            justify="left" if is_text else "right",
            no_wrap=name != "why",
            overflow="fold" if name in ("cell", "why") else "ellipsis",
        )
    return table


def _state(cell: PlannedCell) -> Text:
    return Text(cell.state.value, style=STYLES[cell.state.value])


# States that need attention come first; one that is not here comes before the done ones.
_INTEREST = ("running", "failed", "drifted", "interrupted", "queued", "missing")
_TROUBLED = ("failed", "drifted", "interrupted")
_TEXTS = ("cell", "state", "work", "where", "why")
# In this order, where it is narrow.
_GIVEN_UP = ("where", "images/s", "done", "left", "work", "epoch")
_LEAST_WHY = 24  # columns; with fewer, reasons stand below the table
_REASONS = 10  # below the table
_GAP = 2


def status_picture(
    plan: Plan, *, width: int, most: int | None, has_reasons: bool = True
) -> RenderableType:
    """A table of cells with the totals below.

    Args:
        plan: the states.
        width: of the terminal, columns.
        most: how many cells to show; None shows all.
        has_reasons: print below what the table has no room for.
    """
    shown = _chosen(plan.cells, most)
    progress = progress_of(plan, shown)
    lines = [_line(cell, progress[cell.key]) for cell in shown]
    names, why_width = _fitting(lines, width)
    table = Table(title=plan.grid.title, title_justify="left", box=None, header_style="bold")
    table.pad_edge = False
    for name in names:
        # A key is never cut: people copy it. The reason gives way instead.
        table.add_column(
            name,
            justify="left" if name in _TEXTS else "right",
            no_wrap=name != "cell",
            overflow="fold" if name == "cell" else "ellipsis",
            max_width=why_width if name == "why" else None,
        )
    for cell, line in zip(shown, lines, strict=True):
        style = {"state": STYLES.get(cell.state.value, "")}
        table.add_row(*(Text(line[name], style=style.get(name, "")) for name in names))
    below = _reasons(shown) if has_reasons and "why" not in names else []
    keys = {cell.key for cell in shown}
    rest = _rest([cell for cell in plan.cells if cell.key not in keys])
    return Group(table, *below, *rest, Text(totals(plan, progress), "bold"))


def totals(plan: Plan, progress: Mapping[str, Progress] | None = None) -> str:
    """How many cells are in which state, and how much work is left as far as it is known."""
    progress = progress or {}
    left = []
    for cell in plan.cells:
        if cell.state is not State.done:
            running = progress.get(cell.key, Progress()).seconds_left
            left.append(running if running is not None else cell.seconds)
    known = [seconds for seconds in left if seconds is not None]
    if not known:
        return counts(plan)
    some = "" if len(known) == len(left) else f" of {len(known)} of them"
    return f"{counts(plan)}; about {clock(sum(known))} of work left{some}"


def _chosen(cells: Sequence[PlannedCell], most: int | None) -> list[PlannedCell]:
    """The cells to show by interest; where room is short, no state crowds out another."""
    groups: dict[int, list[PlannedCell]] = {}
    for cell in cells:
        groups.setdefault(_interest(cell), []).append(cell)
    ordered = [groups[rank] for rank in sorted(groups)]
    left = len(cells) if most is None else most
    shares = [0] * len(ordered)
    while left > 0 and any(share < len(g) for share, g in zip(shares, ordered, strict=True)):
        for index, group in enumerate(ordered):
            if left > 0 and shares[index] < len(group):
                shares[index] += 1
                left -= 1
    return [cell for share, group in zip(shares, ordered, strict=True) for cell in group[:share]]


def _interest(cell: PlannedCell) -> int:
    value = cell.state.value
    if value in _INTEREST:
        return _INTEREST.index(value)
    return len(_INTEREST) + (cell.state is State.done)


def _line(cell: PlannedCell, progress: Progress) -> dict[str, str]:
    """The text of one cell by column; empty where it has no value."""
    is_running = cell.state is State.running
    return {
        "cell": cell.key,
        "state": cell.state.value,
        "epoch": f"{progress.epoch}/{progress.epochs}" if progress.epochs else "-",
        "work": progress.work if is_running else "",
        "done": fraction(progress),
        "mIoU": percent(miou(cell, progress)),
        "images/s": speed(progress) if is_running else "-",
        "left": clock(progress.seconds_left) if is_running else "-",
        "where": where(cell),
        "why": cell.why,
    }


def _fitting(lines: Sequence[Mapping[str, str]], width: int) -> tuple[list[str], int]:
    """The columns that have values and fit, and the width that is left for reasons."""
    names = [
        name
        for name in (lines[0] if lines else ("cell", "state"))
        if name in ("cell", "state") or any(line[name] not in ("", "-") for line in lines)
    ]
    widths = {name: max([len(name), *(len(line[name]) for line in lines)]) for name in names}
    for name in _GIVEN_UP:
        left = width - sum(widths[n] + _GAP for n in names if n != "why")
        if left >= (min(_LEAST_WHY, widths["why"]) if "why" in names else -_GAP):
            break
        if left >= -_GAP and "why" in names:
            names.remove("why")
            break
        if name in names:
            names.remove(name)
    left = width - sum(widths[n] + _GAP for n in names if n != "why")
    if "why" in names and left < min(_LEAST_WHY, widths["why"]):
        names.remove("why")
    return names, max(left, 0)


def _reasons(cells: Sequence[PlannedCell]) -> list[Text]:
    """Why cells need a look, where the table has no room for it."""
    troubled = [cell for cell in cells if cell.state.value in _TROUBLED][:_REASONS]
    return [Text(f"{cell.key}: {cell.why}", STYLES[cell.state.value]) for cell in troubled]


def _rest(cells: Sequence[PlannedCell]) -> list[Text]:
    """One line about the cells that are not shown."""
    if not cells:
        return []
    numbers = Counter(cell.state.value for cell in cells)
    counted = {value: numbers[value] for value in (*_INTEREST, *numbers)}
    kinds = ", ".join(f"{number} {value}" for value, number in counted.items() if number)
    return [Text(f"and {len(cells)} more: {kinds}; show=all prints every cell", "dim")]
