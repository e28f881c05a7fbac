"""The state of each cell of a grid, from the files under its root, and what a command asks for.

Nothing here imports torch, Ray or Slurm, since `plan` and `status` must start fast.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatch

from datasets.wording import quantity
from orchestrator.options import LaunchOptions
from orchestrator.planning.estimate import seconds_by_key, shares
from orchestrator.planning.today import TodaysData, todays
from orchestrator.results.counted import Today, counted, data_of, is_same
from orchestrator.results.row import uncollected
from orchestrator.results.store import Row, late_rows, planned_rows, state_rows
from orchestrator.storage.file_lock import LockOwner
from orchestrator.storage.root import Root
from orchestrator.storage.run_state import RunState
from sweeps.cell import Cell
from sweeps.cell_configs import cell_configs
from sweeps.grid import Grid, load_grid
from trainer.checkpoint_manifest import Manifest
from trainer.config.fingerprint import config_json, differences
from trainer.config.schema import TrainConfig


class State(Enum):
    """The state of a cell, from its rows, its run directory and its lock."""

    done = "done"  # a row of today's configuration
    drifted = "drifted"  # a row or checkpoint of another configuration
    running = "running"  # a process owns the run
    failed = "failed"  # the newest attempt failed for good
    interrupted = "interrupted"  # began, did not end, and no process owns it
    missing = "missing"
    queued = "queued"  # its job waits in Slurm; only `backends/slurm/queued.py` says so


# States that a launch runs; drifted cells only when asked.
LAUNCHED = (State.missing, State.interrupted, State.failed, State.queued)
RESUMED = (State.interrupted, State.failed)


@dataclass(frozen=True)
class QueuedJob:
    """A cell's job that waits in Slurm, with the state and the reason that Slurm gives.

    Attributes:
        since: when it was submitted, in local time.
    """

    job_id: str
    state: str
    reason: str
    since: str


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its state and why.

    Attributes:
        why: one line of evidence.
        changed: for drifted cells, lines such as ``optim.lr: 0.0005 -> 0.001``.
        row: the row behind the state, if there is one; of a done cell with the columns of
            `PLANNED` alone.
        attempt: number of the newest attempt in its run directory; 0 without one.
        published_attempt: newest attempt among the rows of the cell.
        seconds: estimated length of the whole run; None while nothing comparable was measured.
        job: in Slurm, of a queued cell.
    """

    key: str
    state: State
    why: str
    config: TrainConfig
    fingerprint: str
    changed: tuple[str, ...] = ()
    row: Row | None = None
    owner: LockOwner | None = None
    attempt: int = 0
    published_attempt: int = 0
    seconds: float | None = None
    job: QueuedJob | None = None

    @property
    def config_json(self) -> str:
        """The configuration as JSON."""
        return config_json(self.config)


@dataclass(frozen=True)
class Plan:
    """All chosen cells of a grid with their states.

    Attributes:
        today: what a row must have to be of today, by key: of all cells of the grid, chosen or
            not, and of seeds that the grid lacks but rows have.
    """

    grid: Grid
    root: Root
    cells: tuple[PlannedCell, ...]
    today: Mapping[str, Today]

    def keys(self, *states: State) -> list[str]:
        """Keys of the cells in these states, in the grid's order."""
        return [cell.key for cell in self.cells if cell.state in states]

    def count(self, state: State) -> int:
        """Number of cells in a state."""
        return len(self.keys(state))

    def counts(self) -> dict[str, int]:
        """Number of cells by state."""
        return {state.value: self.count(state) for state in State}


def make_plan(
    name: str,
    root: Root,
    *,
    only: str = "*",
    overrides: Sequence[str] = (),
    cells: Sequence[Cell] = (),
    needs_data: bool = False,
) -> Plan:
    """The states of a grid's cells.

    Args:
        name: of a grid, or the path of its file.
        root: of runs and results.
        only: glob over keys.
        overrides: training settings for every cell, after the grid's own.
        cells: in place of the grid's own; none keeps these.
        needs_data: whether the chosen cells' lists must be on this machine.

    Raises:
        ValueError: unknown grid or setting, lists that are needed and missing, no cell fits
            `only`, an unreadable row.
    """
    grid = load_grid(name)
    if cells:
        seeds = tuple(dict.fromkeys(cell.seed for cell in cells))
        grid = replace(grid, cells=tuple(cells), seeds=seeds, core_minutes=None)
    chosen = chosen_cells(grid, only)
    settings = [*grid.overrides, *overrides]
    composed = cell_configs(chosen, settings, needs_data=needs_data)
    configs = {cell.key: config for cell, config in composed.items()}
    left_out = [cell for cell in grid.cells if cell.key not in configs]
    others: dict[str, TrainConfig] = {}
    with suppress(ValueError):  # what `only` leaves out may lack its data; tables print its rows
        composed = cell_configs(left_out, settings, needs_data=False)
        others = {cell.key: config for cell, config in composed.items()}
    rows: Sequence[Row] = planned_rows(root, grid.cells)
    data = TodaysData()
    today = todays({**configs, **others}, rows, data)
    rows = _with_settings(rows, root, grid.cells, today)
    measured: dict[str, float] = {}
    if grid.core_minutes and not overrides:  # it was measured with the grid's own settings
        with suppress(ValueError):  # as above
            measured = shares({**configs, **others}, 60 * grid.core_minutes)
    states = _states(configs, root, rows, today, data, measured=measured)
    return Plan(grid, root, tuple(states), today)


def _with_settings(
    rows: Sequence[Row], root: Root, cells: Iterable[Cell], today: Mapping[str, Today]
) -> Sequence[Row]:
    """The rows, those of another configuration than today's with it, to say what has changed."""
    drifted = {
        row.key
        for row in rows
        if row.key in today and row.fingerprint != today[row.key].fingerprint
    }
    if not drifted:
        return rows
    return [row for row in rows if row.key not in drifted] + state_rows(root, cells, drifted)


def chosen_cells(grid: Grid, only: str) -> list[Cell]:
    """The cells of a grid whose keys fit a glob.

    Raises:
        ValueError: none does.
    """
    chosen = [cell for cell in grid.cells if fnmatch(cell.key, only)]
    if not chosen:
        is_part = any(only in cell.key for cell in grid.cells)
        near = f" Did you mean only=*{only}*? It must fit the whole key." if is_part else ""
        raise ValueError(
            f"only={only} fits none of the {quantity(len(grid.cells), 'cell')} of grid "
            f"{grid.name}; the first is {grid.cells[0].key}.{near}"
        )
    return chosen


def _states(
    configs_by_key: Mapping[str, TrainConfig],
    root: Root,
    rows: Sequence[Row],
    today: Mapping[str, Today],
    data: TodaysData,
    *,
    measured: Mapping[str, float],
) -> Iterable[PlannedCell]:
    """Each cell with its state."""
    prints = {key: today[key].fingerprint for key in configs_by_key}
    seconds = seconds_by_key(configs_by_key, prints, rows, measured=measured)
    done = {r.key for r in rows if r.key in prints and r.status == "done" and today[r.key].is_of(r)}
    states = root.states(configs_by_key, done)
    # A run may have ended after the rows were read and before its lock was: it would look
    # interrupted, so the rows of cells without an owner are read once more.
    free = {key for key, seen in states.items() if not seen.owner and seen.attempt} - done
    late = late_rows(root, free, rows)
    renewed = {row.key for row in late}
    rows_of: dict[str, list[Row]] = {}
    for row in (*(row for row in rows if row.key not in renewed), *late):
        rows_of.setdefault(row.key, []).append(row)
    for key, config in configs_by_key.items():
        own = sorted(rows_of.get(key, []), key=lambda row: row.attempt)
        yield _Evidence(states[key], own, config, today[key], data).cell(key, seconds[key])


@dataclass(frozen=True)
class _Evidence:
    """All that the files under the root say about one cell.

    Attributes:
        rows: of this cell, oldest first.
        today: what a row of today has.
        data: what lies on this machine now.
    """

    run: RunState
    rows: Sequence[Row]
    config: TrainConfig
    today: Today
    data: TodaysData

    def cell(self, key: str, seconds: float | None) -> PlannedCell:
        """The cell with its state."""
        owner, newest = self.run.owner, self.run.newest
        state, why, row, changed = self._state(owner, newest)
        return PlannedCell(
            key=key,
            state=state,
            why=why,
            config=self.config,
            fingerprint=self.today.fingerprint,
            changed=tuple(changed),
            row=row,
            owner=owner,
            attempt=self.run.attempt,
            published_attempt=max((row.attempt for row in self.rows), default=0),
            seconds=seconds,
        )

    def _state(
        self, owner: LockOwner | None, newest: Manifest | None
    ) -> tuple[State, str, Row | None, list[str]]:
        """State, reason, row behind it, changed fields; the strongest evidence first."""
        if owner is not None:
            return State.running, str(owner), None, []
        key = self.config.key
        row = counted(self.rows, {key: self.today}).get(key)
        if row is None or row.status != "done":
            return self._left_behind(newest)
        return self._ended(row, newest)

    def _ended(self, row: Row, newest: Manifest | None) -> tuple[State, str, Row | None, list[str]]:
        """State of a cell that no process runs and that has a done row, of today or not."""
        if self.today.is_of(row):
            where = f" on {row.host}" if row.host else ""
            return State.done, f"attempt {row.attempt}{where}", row, []
        if newest is not None and self.run.attempt > row.attempt and not self._unlike(newest):
            return State.interrupted, f"goes on from step {newest.step}", None, []
        changed = self._changed(row)
        changed += self.data.changes(self.config.data, data_of(row), row.split_checksum or "")
        then, now = row.pretrained_sha256, self.today.weights
        if not is_same(then, now):
            changed.append(f"other first weights ({(then or '')[:8]} -> {now[:8]})")
        return State.drifted, "done with " + "; ".join(changed), row, changed

    def _left_behind(self, newest: Manifest | None) -> tuple[State, str, Row | None, list[str]]:
        """State of a cell that no process runs and that is not done."""
        changed = self._unlike(newest) if newest is not None else []
        if changed:
            return State.drifted, "checkpoint with " + "; ".join(changed), None, changed
        return (*self._unfinished(newest), [])

    def _unlike(self, newest: Manifest) -> list[str]:
        """In what a checkpoint differs from today's run; empty where it can go on."""
        guards = {name: str(newest.guards.get(name, "")) for name in ("data", "split")}
        changed = self._changed(newest)
        return changed + self.data.changes(self.config.data, guards["data"], guards["split"])

    def _unfinished(self, newest: Manifest | None) -> tuple[State, str, Row | None]:
        """State of a cell that is neither running, done nor drifted."""
        attempt = self.run.attempt
        last = self.rows[-1] if self.rows else None
        if last and last.attempt >= attempt and last.fingerprint == self.today.fingerprint:
            lines = (last.error_text or "").strip().splitlines()
            reasons = filter(None, (last.error_class, *lines[-1:]))
            return State.failed, ": ".join(reasons) or "for an unknown reason", last
        if newest is not None:
            return State.interrupted, f"goes on from step {newest.step}", None
        if attempt and (last is None or last.attempt < attempt):
            return State.interrupted, f"attempt {attempt} ended before a checkpoint", None
        return State.missing, "never ran", None

    def _changed(self, old: Row | Manifest) -> list[str]:
        """What changed of the configuration since; empty where the fingerprint is today's."""
        if old.fingerprint == self.today.fingerprint:
            return []
        return differences(old.config_json, self.config) or ["a field that was added or removed"]


EXIT_DONE, EXIT_UNFINISHED, EXIT_FAILED = 0, 10, 11


@dataclass(frozen=True)
class LaunchRequest:
    """What a command asks for.

    Attributes:
        grid: name or path.
        root: that the options name.
        overrides: settings of the training, for every cell.
        states: of the cells to run; `options.rerun` adds to them.
        cells: in place of the grid's own; none keeps these.
    """

    grid: str
    root: Root
    options: LaunchOptions
    overrides: tuple[str, ...] = ()
    states: tuple[State, ...] = LAUNCHED
    cells: tuple[Cell, ...] = ()

    def plan(self, *, needs_data: bool = False) -> Plan:
        """The states now, see `make_plan`."""
        self.root.check()
        with uncollected():
            return make_plan(
                self.grid,
                self.root,
                only=self.options.only,
                overrides=self.overrides,
                cells=self.cells,
                needs_data=needs_data,
            )

    def chosen(self, plan: Plan) -> list[PlannedCell]:
        """The cells to run."""
        added = {
            "none": (),
            "drifted": (State.drifted,),
            "all": (State.drifted, State.done),
        }[self.options.rerun]
        return [cell for cell in plan.cells if cell.state in (*self.states, *added)]


def exit_code(plan: Plan) -> int:
    """0 everything is done; 11 some cells failed and none is under way; 10 otherwise."""
    if plan.count(State.done) == len(plan.cells):
        return EXIT_DONE
    is_under_way = plan.keys(State.running, State.interrupted, State.queued)
    return EXIT_FAILED if plan.count(State.failed) and not is_under_way else EXIT_UNFINISHED
