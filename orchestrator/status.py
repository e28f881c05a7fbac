"""The cells of a grid as a table or as JSON, for `plan` and `status`."""

import json
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from orchestrator.places import Places
from orchestrator.plan import Plan, PlannedCell, State
from orchestrator.progress import Progress, read_progress
from orchestrator.wording import STYLES, clock, fraction, percent, speed

# States that a launch runs; drifted cells only when asked.
LAUNCHED = (State.missing, State.interrupted, State.failed, State.queued)
RESUMED = (State.interrupted, State.failed)


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


def status_table(plan: Plan) -> Table:
    """Where every cell stands."""
    names = ("cell", "state", "epoch", "done", "mIoU", "images/s", "left", "where", "why")
    table = _table(plan, *names)
    for cell in plan.cells:
        found = _progress(cell, plan.root)
        is_running = cell.state is State.running
        table.add_row(
            cell.key,
            _state(cell),
            f"{found.epoch}/{found.epochs}" if found.epochs else "-",
            fraction(found),
            percent(_miou(cell, found)),
            speed(found) if is_running else "-",
            clock(found.seconds_left) if is_running else "-",
            _where(cell),
            Text(cell.why),
        )
    return table


def counts(plan: Plan) -> str:
    """One line: how many cells are in which state."""
    present = [(state, plan.count(state)) for state in State]
    text = ", ".join(f"{number} {state.value}" for state, number in present if number)
    return f"{plan.grid.name}: {len(plan.cells)} cells: {text}"


def as_json(plan: Plan, chosen: Collection[str]) -> str:
    """Everything the tables show, for programs."""
    cells = [_plain(cell, plan.root, runs=cell.key in chosen) for cell in plan.cells]
    numbers = {state.value: plan.count(state) for state in State}
    return json.dumps({"grid": plan.grid.name, "counts": numbers, "cells": cells}, indent=1)


def _plain(cell: PlannedCell, root: str, *, runs: bool) -> dict[str, Any]:
    found = _progress(cell, root)
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
        "miou_percent": _miou(cell, found),
        "images_per_second": found.images_per_second,
        "seconds_left": found.seconds_left if cell.state is State.running else None,
        "where": _where(cell),
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


def _progress(cell: PlannedCell, root: str) -> Progress:
    """How far the cell is; nothing for one that never ran under this configuration."""
    if cell.state in (State.missing, State.drifted):
        return Progress()
    return read_progress(Places.at(root).run(cell.key)) or Progress()


def _miou(cell: PlannedCell, found: Progress) -> float | None:
    if cell.row is not None and cell.row.status == "done":
        return cell.row.best_miou_percent
    return found.miou_percent


def _where(cell: PlannedCell) -> str:
    if cell.holder is not None:
        return f"{cell.holder.host}:{cell.holder.pid}"
    if cell.job is not None:
        return f"Slurm {cell.job.job_id}"
    return (cell.row.host or "") if cell.row is not None else ""
