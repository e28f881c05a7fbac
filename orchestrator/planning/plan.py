"""The state of each cell of a grid, from the files under its root, and what a command asks for.

Nothing here imports torch, Ray or Slurm, since `plan` and `status` must start fast.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch

from orchestrator.options import LaunchOptions
from orchestrator.planning.estimate import seconds_by_key
from orchestrator.results.store import Row, late_rows, state_rows
from orchestrator.storage.file_lock import LockOwner
from orchestrator.storage.root import Root
from orchestrator.storage.run_state import RunState
from sweeps.cell_configs import cell_configs
from sweeps.grid import Grid, load_grid
from trainer.checkpoint_manifest import Manifest
from trainer.config.fingerprint import config_json, differences, fingerprints
from trainer.config.schema import TrainConfig


def data_of(configs: Mapping[str, TrainConfig]) -> dict[str, str]:
    """Fingerprint of today's data of every cell whose data set is a folder of the user.

    Args:
        configs: by key.

    Returns:
        By key; without cells whose data is not on this machine.
    """
    own = {key: config.data for key, config in configs.items() if config.data.dataset == "folder"}
    if not own:
        return {}
    from datasets.dataset import fingerprint_of

    known: dict[object, str] = {}
    for data in own.values():
        if data not in known:
            try:
                known[data] = fingerprint_of(data)
            except (ValueError, OSError):
                known[data] = ""
    return {key: known[data] for key, data in own.items() if known[data]}


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
        row: the row behind the state, if there is one.
        published_attempt: newest attempt among the rows of the cell.
        seconds: estimated length of the whole run; None while nothing comparable is done.
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
    published_attempt: int = 0
    seconds: float | None = None
    job: QueuedJob | None = None

    @property
    def config_json(self) -> str:
        """The configuration as JSON."""
        return config_json(self.config)


@dataclass(frozen=True)
class Plan:
    """All chosen cells of a grid with their states."""

    grid: Grid
    root: Root
    cells: tuple[PlannedCell, ...]

    def keys(self, *states: State) -> list[str]:
        """Keys of the cells in these states, in the grid's order."""
        return [cell.key for cell in self.cells if cell.state in states]

    def count(self, state: State) -> int:
        """Number of cells in a state."""
        return len(self.keys(state))

    @property
    def expected(self) -> dict[str, str]:
        """By key, the fingerprint that a table expects of a row.

        The configuration says where a user's images are, and not which; where they have changed the
        value is one that no row has.
        """
        expected = {cell.key: cell.fingerprint for cell in self.cells}
        for cell in self.cells:
            if cell.state is not State.drifted or cell.row is None:
                continue
            if cell.row.fingerprint == expected[cell.key]:
                expected[cell.key] = "other images"
        return expected


def make_plan(name: str, root: Root, *, only: str = "*", overrides: Sequence[str] = ()) -> Plan:
    """The states of a grid's cells.

    Args:
        name: of a grid, or the path of its file.
        root: of runs and results.
        only: glob over keys.
        overrides: training settings for every cell, after the grid's own.

    Raises:
        ValueError: unknown grid or setting, no cell fits `only`, an unreadable row.
    """
    grid = load_grid(name)
    chosen = [cell for cell in grid.cells if fnmatch(cell.key, only)]
    if not chosen:
        raise ValueError(
            f"only={only} fits none of the {len(grid.cells)} cells of grid {grid.name}; the first "
            f"is {grid.cells[0].key}."
        )
    composed = cell_configs(chosen, [*grid.overrides, *overrides])
    rows = state_rows(root)
    by_key = {cell.key: config for cell, config in composed.items()}
    return Plan(grid, root, tuple(_states(by_key, root, rows)))


def _states(
    configs_by_key: Mapping[str, TrainConfig], root: Root, rows: Sequence[Row]
) -> Iterable[PlannedCell]:
    """Each cell with its state."""
    prints = fingerprints(configs_by_key)
    seconds = seconds_by_key(configs_by_key, prints, rows)
    done = {r.key for r in rows if r.status == "done" and r.fingerprint == prints.get(r.key)}
    data = data_of(configs_by_key)
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
        evidence = _Evidence(states[key], own, config, prints[key], data.get(key, ""))
        yield evidence.cell(key, seconds[key])


@dataclass(frozen=True)
class _Evidence:
    """All that the files under the root say about one cell.

    Attributes:
        rows: of this cell, oldest first.
        data: fingerprint of its data where that is a folder of the user; else empty.
    """

    run: RunState
    rows: Sequence[Row]
    config: TrainConfig
    fingerprint: str
    data: str

    def cell(self, key: str, seconds: float | None) -> PlannedCell:
        """The cell with its state."""
        owner, newest = self.run.owner, self.run.newest
        state, why, row, changed = self._state(owner, newest)
        return PlannedCell(
            key=key,
            state=state,
            why=why,
            config=self.config,
            fingerprint=self.fingerprint,
            changed=tuple(changed),
            row=row,
            owner=owner,
            published_attempt=max((row.attempt for row in self.rows), default=0),
            seconds=seconds,
        )

    def _state(
        self, owner: LockOwner | None, newest: Manifest | None
    ) -> tuple[State, str, Row | None, list[str]]:
        """State, reason, row behind it, changed fields; the strongest evidence first."""
        if owner is not None:
            return State.running, str(owner), None, []
        return self._ended() or self._left_behind(newest)

    def _ended(self) -> tuple[State, str, Row | None, list[str]] | None:
        """State of a cell that has a done row; None for others."""
        done = [row for row in self.rows if row.status == "done"]
        own = [row for row in done if row.fingerprint == self.fingerprint]
        other = self._other_data(done[-1].data_fingerprint) if done else []
        if own and other:  # whatever an older row says: the newest one counts
            return State.drifted, f"done with {other[0]}", done[-1], other
        if own:
            return State.done, f"attempt {own[-1].attempt} on {own[-1].host}", own[-1], []
        if done:
            changed = self._changed(done[-1].config_json)
            return State.drifted, "done with " + "; ".join(changed), done[-1], changed
        return None

    def _left_behind(self, newest: Manifest | None) -> tuple[State, str, Row | None, list[str]]:
        """State of a cell that no process runs and that is not done."""
        if newest is not None and newest.fingerprint != self.fingerprint:
            changed = self._changed(newest.config_json)
            return State.drifted, "checkpoint with " + "; ".join(changed), None, changed
        other = self._other_data(str(newest.guards.get("data", ""))) if newest else []
        if other:
            return State.drifted, f"checkpoint with {other[0]}", None, other
        return (*self._unfinished(newest), [])

    def _unfinished(self, newest: Manifest | None) -> tuple[State, str, Row | None]:
        """State of a cell that is neither running, done nor drifted."""
        attempt = self.run.attempt
        last = self.rows[-1] if self.rows else None
        if last and last.attempt >= attempt and last.fingerprint == self.fingerprint:
            text = (last.error_text or "").strip().splitlines() or [""]
            return State.failed, f"{last.error_class}: {text[-1]}", last
        if newest is not None:
            return State.interrupted, f"goes on from step {newest.step}", None
        if attempt and (last is None or last.attempt < attempt):
            return State.interrupted, f"attempt {attempt} ended before a checkpoint", None
        return State.missing, "never ran", None

    def _changed(self, old_json: str) -> list[str]:
        """What changed since; never empty, since the fingerprints differ."""
        return differences(old_json, self.config) or ["a field that was added or removed"]

    def _other_data(self, then: str | None) -> list[str]:
        """How the data differ from those of a row or checkpoint; empty where they do not."""
        if not self.data or not then or then == self.data:
            return []
        return [f"data.root: other images ({then[:8]} -> {self.data[:8]})"]


EXIT_DONE, EXIT_UNFINISHED, EXIT_FAILED = 0, 10, 11


@dataclass(frozen=True)
class LaunchRequest:
    """What a command asks for.

    Attributes:
        grid: name or path.
        root: that the options name.
        overrides: settings of the training, for every cell.
        states: of the cells to run; `options.rerun` adds to them.
    """

    grid: str
    root: Root
    options: LaunchOptions
    overrides: tuple[str, ...] = ()
    states: tuple[State, ...] = LAUNCHED

    def plan(self) -> Plan:
        """The states now."""
        self.root.check()
        only = self.options.only
        return make_plan(self.grid, self.root, only=only, overrides=self.overrides)

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
