"""The cells of a grid: what a launch would run, and everything about them as JSON."""

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from orchestrator.places import Places
from orchestrator.plan import Plan, PlannedCell, State
from orchestrator.progress import Progress
from orchestrator.sight import progresses
from orchestrator.wording import STYLES, clock


def plan_table(plan: Plan, chosen: Collection[str]) -> Table:
    """What would run, and why.

    Args:
        plan: the states.
        chosen: keys of the cells that a launch would run.
    """
    table = _table(plan, "cell", "state", "runs", "estimate", "why")
    for cell in plan.cells:
        runs = "yes" if cell.key in chosen else ""
        table.add_row(cell.key, _state(cell), runs, clock(cell.seconds), Text(cell.why))
    return table


def counts(plan: Plan) -> str:
    """One line: how many cells are in which state."""
    present = [(state, plan.count(state)) for state in State]
    text = ", ".join(f"{number} {state.value}" for state, number in present if number)
    return f"{plan.grid.name}: {len(plan.cells)} cells: {text}"


def as_json(plan: Plan, chosen: Collection[str]) -> str:
    """Everything the tables show, for programs."""
    found = progress_of(plan, plan.cells)
    cells = [_plain(cell, found[cell.key], runs=cell.key in chosen) for cell in plan.cells]
    numbers = {state.value: plan.count(state) for state in State}
    return json.dumps({"grid": plan.grid.name, "counts": numbers, "cells": cells}, indent=1)


def progress_of(plan: Plan, cells: Iterable[PlannedCell]) -> dict[str, Progress]:
    """How far some cells are, by key; nothing for one that never ran under this configuration."""
    places = Places.at(plan.root)
    unknown = [State.missing, State.drifted, *([State.done] if places.url else [])]
    shown = list(cells)
    found = progresses(places, [cell.key for cell in shown if cell.state not in unknown])
    return {cell.key: found.get(cell.key) or _of_row(cell) for cell in shown}


def miou(cell: PlannedCell, found: Progress) -> float | None:
    """The best mIoU of a done cell, the last one of a running cell."""
    if cell.row is not None and cell.row.status == "done":
        return cell.row.best_miou_percent
    return found.miou_percent


def where(cell: PlannedCell) -> str:
    """Who runs the cell, or where it ran."""
    if cell.holder is not None:
        return f"{cell.holder.host}:{cell.holder.pid}"
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


def _plain(cell: PlannedCell, found: Progress, *, runs: bool) -> dict[str, Any]:
    return {
        "key": cell.key,
        "state": cell.state.value,
        "why": cell.why,
        "runs": runs,
        "changed": list(cell.changed),
        "fingerprint": cell.fingerprint,
        "estimated_seconds": cell.seconds,
        "step": found.step,
        "total_steps": found.total_steps,
        "epoch": found.epoch,
        "epochs": found.epochs,
        "miou_percent": miou(cell, found),
        "images_per_second": found.images_per_second,
        "seconds_left": found.seconds_left if cell.state is State.running else None,
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
