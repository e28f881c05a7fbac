"""Hours and costs of the cells that a launch would run: by cell, by kind of cell and by table."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from operator import add
from statistics import mean

from datasets.splits.lists import split_sizes
from orchestrator.execution.timing import Timing
from orchestrator.options import LaunchOptions
from orchestrator.planning.estimate import relative_work
from orchestrator.planning.memory import GIB
from orchestrator.planning.plan import RESUMED, Plan, PlannedCell
from sweeps.cell import Cell
from sweeps.grid_tables import tables_of
from trainer.config.schema import TrainConfig
from trainer.hardware.card_memory import memory_here
from trainer.schedule import Schedule


@dataclass(frozen=True)
class Span:
    """Seconds, with the interval between the fastest and the slowest steps that were timed."""

    low: float
    middle: float
    high: float

    def __add__(self, other: "Span") -> "Span":
        """The sum; intervals add up, since a machine that is slow for one cell is for others."""
        return Span(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def times(self, factor: float) -> "Span":
        """So many times as long."""
        return Span(self.low * factor, self.middle * factor, self.high * factor)


@dataclass(frozen=True)
class CellForecast:
    """What is known of a cell before it runs or goes on.

    Attributes:
        kind: its key without split and seed.
        left: part of the run, from 1 to 0.
        seconds: of what is left; None where nothing comparable was measured.
        held: GPUs that it holds meanwhile, or cores where it uses none.
        has_card: whether it uses a GPU.
        work: that is left, relative to other cells.
        timing: of its kind, if that was timed.
    """

    key: str
    kind: str
    left: float
    seconds: Span | None
    held: float
    has_card: bool
    work: float
    timing: Timing | None


@dataclass(frozen=True)
class Line:
    """The forecast of some cells together.

    Attributes:
        name: of a table or of a kind of cells.
        seconds: one after the other; None unless those of each cell are known.
        held_seconds: the same times the GPUs or cores that a cell holds.
        work: that is left, relative to other lines.
        gib: the most memory that one process takes; None unless all cells were timed.
    """

    name: str
    cells: tuple[CellForecast, ...]
    seconds: Span | None
    held_seconds: Span | None
    work: float
    gib: float | None


def forecast(
    plan: Plan,
    chosen: Sequence[PlannedCell],
    timings: Mapping[str, Timing],
    options: LaunchOptions,
) -> list[CellForecast]:
    """What is left of each chosen cell, by its timing or else by the plan's estimate.

    Args:
        plan: the states.
        chosen: cells that a launch would run.
        timings: by key.
        options: of that launch.
    """
    progress = plan.root.progress([cell.key for cell in chosen if cell.state in RESUMED])
    work = relative_work({cell.key: cell.config for cell in chosen})
    forecasts = []
    for cell in chosen:
        done = progress.get(cell.key)
        placed = _with_card(options, timings.get(cell.key))
        left = 1.0 - (done.fraction if done else 0.0)
        timing = timings.get(cell.key)
        span = None if cell.seconds is None else Span(cell.seconds, cell.seconds, cell.seconds)
        if timing is not None:
            span = span_of(cell.config, timing, options)
        forecasts.append(
            CellForecast(
                cell.key,
                kind_name(cell.key),
                left,
                span.times(left) if span else None,
                held_by(cell.config, placed),
                uses_card(cell.config, placed),
                work[cell.key] * left,
                timing,
            )
        )
    return forecasts


def with_forecast(plan: Plan, cells: Iterable[CellForecast]) -> Plan:
    """The plan with the estimates that follow from timings."""
    whole = {c.key: c.seconds.middle / c.left for c in cells if c.timing and c.seconds and c.left}
    planned = [replace(cell, seconds=whole.get(cell.key, cell.seconds)) for cell in plan.cells]
    return replace(plan, cells=tuple(planned))


def span_of(config: TrainConfig, timing: Timing, options: LaunchOptions) -> Span:
    """Seconds of a whole run; what methods predict between their stages is not counted.

    On a CPU a run that has its cores for itself, since the timing is of CPU time.

    Raises:
        ValueError: the split is smaller than a batch.
    """
    labelled, unlabelled, validation = split_sizes(config.data)
    schedule = Schedule.of(config, num_labelled=labelled, num_unlabelled=unlabelled)
    every = config.evaluation.every_epochs
    evaluations = sum(math.ceil(stage.epochs / every) for stage in schedule.stages)
    apart = timing.start + evaluations * (timing.evaluation + validation * timing.image)
    cores = options.cpus_for(config, "cpu") if timing.device == "cpu" else 1
    steps = (min(timing.steps), mean(timing.steps), max(timing.steps))
    return Span(*((apart + schedule.total_steps * step) / cores for step in steps))


def _with_card(options: LaunchOptions, timing: Timing | None) -> LaunchOptions:
    """The options with a GPU for each rank where a probe elsewhere used one."""
    has_card = timing is not None and timing.device == "cuda" and options.gpus_per_rank < 0
    return replace(options, gpus_per_rank=1.0) if has_card else options


def held_by(config: TrainConfig, options: LaunchOptions) -> float:
    """GPUs that the ranks of a cell hold together, or cores where none uses a GPU."""
    if options.gpus_per_rank > 0:
        return options.ranks * options.gpus_per_rank
    if uses_card(config, options):
        return float(options.ranks)
    return float(options.ranks * options.cpus_for(config, "cpu"))


def uses_card(config: TrainConfig, options: LaunchOptions) -> bool:
    """Whether a cell would train on a GPU: of this machine, unless the options say it."""
    if config.run.device == "cpu" or options.gpus_per_rank == 0:
        return False
    return options.gpus_per_rank > 0 or _has_card()


def unit_of(cells: Iterable[CellForecast]) -> str:
    """What `held` of some cells counts."""
    return "GPU-hours" if any(cell.has_card for cell in cells) else "core-hours"


@cache
def _has_card() -> bool:
    return memory_here() is not None


def kind_name(key: str) -> str:
    """The key of a cell without its split and its seed."""
    cell = Cell.parse(key)
    return f"{cell.recipe}.{cell.backbone}.c{cell.crop}.{cell.method}.{cell.loss}"


def by_kind(cells: Iterable[CellForecast]) -> list[Line]:
    """A line for each kind, the longest first."""
    kinds: dict[str, list[CellForecast]] = {}
    for cell in cells:
        kinds.setdefault(cell.kind, []).append(cell)
    return _longest_first(line_of(name, own) for name, own in kinds.items())


def by_table(plan: Plan, cells: Iterable[CellForecast]) -> list[Line]:
    """A line for each table, the longest first; a cell of two tables counts in both."""
    groups = cells_by_group(plan)
    known = {cell.key: cell for cell in cells}
    lines = []
    for table in tables_of(plan.grid):
        keys = dict.fromkeys(
            key for cell in table.cells for key in groups.get(replace(cell, seed=0), ())
        )
        lines.append(line_of(table.name, [known[key] for key in keys if key in known]))
    return _longest_first(lines)


def line_of(name: str, cells: Iterable[CellForecast]) -> Line:
    """The sums over some cells."""
    cells = tuple(cells)
    peaks = [cell.timing.peak_bytes / GIB for cell in cells if cell.timing]
    return Line(
        name,
        cells,
        _sum([cell.seconds for cell in cells]),
        _sum([cell.seconds.times(cell.held) if cell.seconds else None for cell in cells]),
        sum(cell.work for cell in cells),
        max(peaks) if peaks and len(peaks) == len(cells) else None,
    )


def cells_by_group(plan: Plan) -> dict[Cell, list[str]]:
    """Keys of the planned cells of all seeds, by their cell with seed 0."""
    planned = {cell.key for cell in plan.cells}
    groups: dict[Cell, list[str]] = {}
    for cell in plan.grid.cells:
        if cell.key in planned:
            groups.setdefault(replace(cell, seed=0), []).append(cell.key)
    return groups


def _longest_first(lines: Iterable[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: -(line.seconds.middle if line.seconds else line.work))


def _sum(spans: Sequence[Span | None]) -> Span | None:
    """The sum, if each is known."""
    known = [span for span in spans if span is not None]
    return reduce(add, known, Span(0.0, 0.0, 0.0)) if len(known) == len(spans) else None


def entries_of(plan: Plan, cells: Collection[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Which entries of each table are complete once some cells are done, and which are not.

    Args:
        plan: the states.
        cells: keys of the cells that are done by then.

    Returns:
        By table the entries with all their seeds, and the others, each as a cell without its seed.
    """
    groups = cells_by_group(plan)
    tables = {}
    for table in tables_of(plan.grid):
        complete: list[str] = []
        left: list[str] = []
        for cell in table.cells:
            keys = groups.get(replace(cell, seed=0), [])
            if keys:
                name = keys[0].rpartition(".")[0]
                (complete if all(key in cells for key in keys) else left).append(name)
        tables[table.name] = (complete, left)
    return tables
