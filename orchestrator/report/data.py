"""The data of a report: filled tables, rows and learning curves of a grid, read once."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from datasets.progress import Say, silent
from orchestrator.planning.plan import Plan, State
from orchestrator.report.pictures import PictureGrid, picture_grids
from orchestrator.results.history import read_history, run_history
from orchestrator.results.seed_design import design_for
from orchestrator.results.store import Row, counted_rows
from orchestrator.tables.fill import fill
from orchestrator.tables.filled import Epoch, FilledTable
from sweeps.grid_tables import tables_of


@dataclass(frozen=True)
class EpochFacts:
    """One epoch of one run; None where nothing was measured."""

    epoch: int
    miou_percent: float | None
    mask_ratio: float | None


@dataclass(frozen=True)
class ReportData:
    """What the sections of a report are made of.

    Attributes:
        rows: those that count, of the grid's cells at any seed.
        histories: epochs by key, of every run that has some, finished or not.
        epoch: whose mIoU the tables print.
        made: when (UTC).
        say: given a few words about each part that takes long.
    """

    plan: Plan
    tables: tuple[FilledTable, ...]
    rows: tuple[Row, ...]
    histories: dict[str, tuple[EpochFacts, ...]]
    epoch: Epoch
    made: datetime
    say: Say = silent

    @cached_property
    def pictures(self) -> dict[str, PictureGrid | str]:
        """By name of each table that compares two methods; a text where there are none, and why."""
        return dict(picture_grids(self.tables, self.plan.root, self.say))


def gather(plan: Plan, epoch: Epoch = "best", say: Say = silent) -> ReportData:
    """Read results, histories and run folders of a planned grid; `say` as of `ReportData`.

    Raises:
        ResultsError: a file among the results is broken.
    """
    rows = counted_rows(plan.root, plan.grid.cells, plan.today, per_class=True)
    tables = tables_of(plan.grid)
    design = design_for(plan.root, plan.grid, plan.today, epoch)
    return ReportData(
        plan=plan,
        tables=tuple(fill(t, rows, epoch=epoch, today=plan.today, design=design) for t in tables),
        rows=tuple(rows),
        histories=_histories(plan, rows),
        epoch=epoch,
        made=datetime.now(UTC),
        say=say,
    )


def _histories(plan: Plan, rows: Iterable[Row]) -> dict[str, tuple[EpochFacts, ...]]:
    """Published epochs of the rows that count; for other cells those in the run directory."""
    attempts = {row.key: row.attempt for row in rows}
    histories = _published(plan, attempts)
    others = [cell.key for cell in plan.grid.cells]
    if plan.root.costs_requests:
        others = plan.keys(State.running, State.interrupted, State.failed)
    for key in {*attempts, *others} - set(histories):
        facts = [_facts(line) for line in run_history(plan.root.local_copy(key).folder)]
        if facts:
            histories[key] = tuple(facts)
    return histories


def _published(plan: Plan, attempts: dict[str, int]) -> dict[str, tuple[EpochFacts, ...]]:
    names = ["key", "attempt", "epoch", "miou_percent", "mask_ratio"]
    table = read_history(plan.root, plan.grid.cells).select(names)
    table = table.filter(pc.is_in(table["key"], pa.array(list(attempts), pa.string())))
    grouped: dict[str, list[EpochFacts]] = {}
    for line in table.to_pylist():
        if line["attempt"] == attempts[line["key"]]:
            grouped.setdefault(line["key"], []).append(_facts(line))
    return {key: tuple(facts) for key, facts in grouped.items()}


def _facts(line: dict[str, object]) -> EpochFacts:
    def number(name: str) -> float | None:
        value = line.get(name)
        return float(value) if isinstance(value, int | float) else None

    return EpochFacts(int(number("epoch") or 0), number("miou_percent"), number("mask_ratio"))
