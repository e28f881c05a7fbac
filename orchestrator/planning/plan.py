"""The state of every cell of a grid, from what lies under the root. Imports no torch and no ray."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch

from orchestrator.claim import Holder
from orchestrator.estimate import seconds_by_key
from orchestrator.own_data import data_of
from orchestrator.places import Places
from orchestrator.results import Row, late_rows, state_rows
from orchestrator.sight import Sight, look
from sweeps.grid import Grid, load_grid
from sweeps.trials import configs
from trainer.config import TrainConfig
from trainer.fingerprint import config_json, differences, fingerprints
from trainer.manifest import Manifest


class State(Enum):
    """What evidence says about a cell."""

    done = "done"  # a row of today's configuration
    drifted = "drifted"  # a row or checkpoint of another configuration
    running = "running"  # somebody holds the run folder
    failed = "failed"  # the newest attempt failed for good
    interrupted = "interrupted"  # began, did not end, nobody holds it
    missing = "missing"
    queued = "queued"  # a job in Slurm waits for its turn; only `orchestrator.queued` says so


# States that a launch runs; drifted cells only when asked.
LAUNCHED = (State.missing, State.interrupted, State.failed, State.queued)
RESUMED = (State.interrupted, State.failed)


@dataclass(frozen=True)
class QueuedJob:
    """A cell's job that waits in Slurm, in Slurm's words.

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
    holder: Holder | None = None
    published_attempt: int = 0
    seconds: float | None = None
    job: QueuedJob | None = None

    @property
    def config_json(self) -> str:
        """The configuration as it travels."""
        return config_json(self.config)


@dataclass(frozen=True)
class Plan:
    """All chosen cells of a grid with their states."""

    grid: Grid
    root: str
    cells: tuple[PlannedCell, ...]

    def keys(self, *states: State) -> list[str]:
        """Keys of the cells in these states, in the grid's order."""
        return [cell.key for cell in self.cells if cell.state in states]

    def count(self, state: State) -> int:
        """Number of cells in a state."""
        return len(self.keys(state))

    @property
    def expected(self) -> dict[str, str]:
        """By key, the fingerprint that a table expects; none fits a row of other images."""
        found = {cell.key: cell.fingerprint for cell in self.cells}
        for cell in self.cells:
            if cell.state is State.drifted and cell.row and cell.row.fingerprint == found[cell.key]:
                found[cell.key] = "other images"
        return found


def make_plan(name: str, root: str, *, only: str = "*", overrides: Sequence[str] = ()) -> Plan:
    """The states of a grid's cells.

    Args:
        name: of a grid, or the path of its file.
        root: where runs and results live.
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
    composed = configs(chosen, [*grid.overrides, *overrides])
    rows = state_rows(root)
    by_key = {cell.key: config for cell, config in composed.items()}
    return Plan(grid, root, tuple(_states(by_key, Places.at(root), rows)))


def _states(
    configs_by_key: Mapping[str, TrainConfig], places: Places, rows: Sequence[Row]
) -> Iterable[PlannedCell]:
    """Each cell with its state."""
    prints = fingerprints(configs_by_key)
    seconds = seconds_by_key(configs_by_key, prints, rows)
    done = {r.key for r in rows if r.status == "done" and r.fingerprint == prints.get(r.key)}
    data = data_of(configs_by_key)
    sights = look(places, configs_by_key, done)
    # A run that ended between the two looks is neither held nor among the rows: it is not cut off.
    free = {key for key, seen in sights.items() if not seen.holder and seen.attempt} - done
    late = late_rows(places.address, free, rows)
    renewed = {row.key for row in late}
    rows_of: dict[str, list[Row]] = {}
    for row in (*(row for row in rows if row.key not in renewed), *late):
        rows_of.setdefault(row.key, []).append(row)
    for key, config in configs_by_key.items():
        own = sorted(rows_of.get(key, []), key=lambda row: row.attempt)
        evidence = _Evidence(sights[key], own, config, prints[key], data.get(key, ""))
        yield evidence.cell(key, seconds[key])


@dataclass(frozen=True)
class _Evidence:
    """What lies under the root about one cell.

    Attributes:
        rows: of this cell, oldest first.
        data: fingerprint of its data, where the configuration does not say which it is.
    """

    sight: Sight
    rows: Sequence[Row]
    config: TrainConfig
    fingerprint: str
    data: str

    def cell(self, key: str, seconds: float | None) -> PlannedCell:
        """The cell with its state."""
        holder, newest = self.sight.holder, self.sight.newest
        state, why, row, changed = self._state(holder, newest)
        return PlannedCell(
            key=key,
            state=state,
            why=why,
            config=self.config,
            fingerprint=self.fingerprint,
            changed=tuple(changed),
            row=row,
            holder=holder,
            published_attempt=max((row.attempt for row in self.rows), default=0),
            seconds=seconds,
        )

    def _state(
        self, holder: Holder | None, newest: Manifest | None
    ) -> tuple[State, str, Row | None, list[str]]:
        """State, reason, row behind it, changed fields; the strongest evidence first."""
        if holder is not None:
            return State.running, str(holder), None, []
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
        """State of a cell that nobody runs and that is not done."""
        if newest is not None and newest.fingerprint != self.fingerprint:
            changed = self._changed(newest.config_json)
            return State.drifted, "checkpoint with " + "; ".join(changed), None, changed
        other = self._other_data(str(newest.guards.get("data", ""))) if newest else []
        if other:
            return State.drifted, f"checkpoint with {other[0]}", None, other
        return (*self._unfinished(newest), [])

    def _unfinished(self, newest: Manifest | None) -> tuple[State, str, Row | None]:
        """State of a cell that is neither running, done nor drifted."""
        attempt = self.sight.attempt
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
