"""One launch of a grid: check what is missing, run it on the chosen back end, show the outcome."""

import shlex
import shutil
import uuid
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from datasets.dataset import open_dataset
from datasets.known.registry import known_dataset
from datasets.wording import quantity
from orchestrator.backends.base import LaunchContext, backend, refuse_ignored, run_queue
from orchestrator.backends.ray.cluster import available_cores
from orchestrator.backends.slurm.queued import with_queued_jobs
from orchestrator.backends.slurm.registry import job_logs
from orchestrator.display.format import about, cells_text, digits
from orchestrator.display.screen import Screen
from orchestrator.display.waiting import SHORT_SECONDS
from orchestrator.execution.allowance import Allowance
from orchestrator.execution.attempt import failed_row
from orchestrator.execution.code_snapshot import snapshot_code
from orchestrator.execution.events import EVENTS_LOG, Events
from orchestrator.execution.provenance import checkout_state
from orchestrator.execution.queue import Listener, Queue, in_start_order
from orchestrator.execution.stop import CELLS_END, JOBS_GO_ON, Stop
from orchestrator.failures import Failure, StaleAttempt, advice_on
from orchestrator.forecast.budget import allowance_of, entries_text
from orchestrator.forecast.forecast import forecast, unit_of
from orchestrator.forecast.probe import known_timings
from orchestrator.options import LaunchOptions
from orchestrator.planning.cards import card_gib, check_cards
from orchestrator.planning.estimate import seconds_together, work
from orchestrator.planning.plan import (
    EXIT_DONE,
    EXIT_FAILED,
    LaunchRequest,
    Plan,
    PlannedCell,
    State,
    exit_code,
)
from orchestrator.results.store import publish
from orchestrator.storage.open import root_of
from orchestrator.storage.root import Root
from orchestrator.trial import Outcome, Trial
from sweeps.cell import Cell
from sweeps.grid_tables import tables_of
from trainer.config.schema import TrainConfig
from trainer.schedule import Schedule

_CHECKPOINT_FILES = 4  # newest two, the best one, and the one being written
_KEPT_WEIGHTS = 6  # of earlier stages, without momentum


def check_data(cells: Iterable[PlannedCell]) -> None:
    """Open every distinct dataset and split once; synthetic scenes are drawn here, not in a worker.

    Raises:
        ValueError: of the first cell whose data is missing, broken or too little; DataError too.
    """
    opened = {}
    for cell in cells:
        data = cell.config.data
        try:
            if data not in opened:
                opened[data] = open_dataset(data)
            split = opened[data].split
            Schedule.of(
                cell.config,
                num_labelled=len(split.labelled),
                num_unlabelled=len(split.unlabelled),
            )
        except ValueError as error:
            raise ValueError(f"Cell {cell.key}: {error}") from error


def check_parts_of_cards(options: LaunchOptions, cells: Iterable[PlannedCell]) -> None:
    """Refuse cells of published data, whose numbers go into tables, on a part of a GPU.

    Neighbours on a card take its memory at times of their own. Where cuDNN then finds none for the
    workspace of an algorithm it takes another one, without a word and with other bits.

    Raises:
        ValueError: such a cell, or several ranks that may meet on one card.
    """
    share = options.gpus_per_rank
    if not 0 < share < 1:
        return
    if options.ranks > 1:
        raise ValueError(
            f"gpus_per_rank={share:g} with ranks={options.ranks}: NCCL refuses two ranks on one "
            "card. Use gpus_per_rank=1, or ranks=1."
        )
    for cell in cells:
        if known_dataset(cell.config.data.dataset).spec.kind == "published":
            raise ValueError(
                f"gpus_per_rank={share:g}: {cell.key} would share a card, and with too little free "
                "memory there cuDNN silently takes another algorithm, which gives other bits. Use "
                "gpus_per_rank=1; parts of a card are for drawn images and your own."
            )


def check_place(backend: str, root: Path, grid: Path) -> None:
    """Refuse a folder whose path the workers of a back end could not be told.

    PYTHONPATH leads them to the copied code and parts its folders by colons. Slurm drops
    backslashes from the path of a log, and a line of a script ends where its path does.

    Raises:
        ValueError: names the folder and the character.
    """
    if backend == "inline":
        return
    signs = {":": root} if backend == "ray" else {":": root, "\\": grid, "\n": grid}
    for sign, folder in signs.items():
        if sign in str(folder):
            raise ValueError(
                f"The folder {folder} has {sign!r} in its path, and backend={backend} could not "
                "tell its workers of it. Choose another root=DIR (with s3://: scratch=DIR) or name "
                "of the grid's file, or backend=inline."
            )


def check_disk(root: Path, cells: Iterable[PlannedCell], running: int) -> None:
    """Check that the disk has room for the checkpoints of the cells that run at once.

    Raises:
        OSError: there is not enough; says how much is missing.
    """
    root.mkdir(parents=True, exist_ok=True)
    needs = sorted((_bytes_of(cell.config) for cell in cells), reverse=True)
    needed = sum(needs[:running])
    free = shutil.disk_usage(root).free
    if free < needed:
        raise OSError(
            28,
            f"{root} has {free / 2**20:.0f} MiB free; the checkpoints of {cells_text(running)} at "
            f"once "
            f"need about {needed / 2**20:.0f} MiB. Make room, or choose another root=DIR",
        )


def _bytes_of(config: TrainConfig) -> int:
    """Room for one run's checkpoints: weights and momentum in fp32, and a second set for EMA."""
    # 22 M parameters outside the bottlenecks and 1.1 M in each, at the width of ResNet-50.
    layers = 22e6 + 1.1e6 * sum(config.model.blocks)
    parameters = config.model.facts.parameters or layers * (config.model.width / 64) ** 2
    sets = 3 if config.method.teacher.value == "ema" else 2
    kept = _KEPT_WEIGHTS if config.method.facts.stages else 0
    return int(parameters * 4 * (sets * _CHECKPOINT_FILES + kept))


def launch(order: LaunchRequest, screen: Screen) -> int:
    """Run the chosen cells of a grid.

    Returns:
        The exit code: 0 everything is done, 10 some cells are still to do, 11 some failed.

    Raises:
        ValueError: configuration or data; nothing was started.
        OSError: no room on the disk.
        Busy: another launch of this grid runs.
        ClusterUnreachable: no Ray.
    """
    refuse_ignored(order.options)
    plan, root = order.plan(needs_data=True), order.root  # unlocked: a wrong command always fails
    check_place(order.options.backend, root.folder, root.grid(plan.grid.name).folder)
    with launch_events(order, plan.grid.name, screen) as events:
        with root.own_grid(plan.grid.name, f"launch of {plan.grid.name}") as is_lost:
            plan = order.plan()  # again: the launch that owned the grid may have run cells
            # A killed launch of this grid may have left workers that are still dying: their cells
            # are tried last, and wait for the lock of the run directory.
            cells = order.chosen(plan) + [c for c in plan.cells if c.state is State.running]
            if not cells:
                return show_end(plan, order, screen)
            with screen.waiting("Looking at the data", quiet_seconds=SHORT_SECONDS):
                order = checked(order, cells)
            _set_aside(cells, root, screen)
            screen.message(announcement(plan.grid.title, cells, order.options), "bold")
            jobs = JOBS_GO_ON.format(grid=shlex.quote(order.grid), root=shlex.quote(root.address))
            goes_on = backend(order.options.backend).detaches and not order.options.limits
            stop = Stop(
                root,
                root.grid(plan.grid.name).stop_file(uuid.uuid4().hex[:8]),
                text=jobs if goes_on else CELLS_END,
                on_message=screen.message,
                is_lost=is_lost,
            )
            queue = _run(order, plan, cells, stop, screen, events)
        return _end(order, queue, stop, screen, events)


def launch_events(order: LaunchRequest, grid: str, screen: Screen) -> Events:
    """The events of a launch or a worker."""
    root = order.root
    facts = {"grid": grid, "root": root.address}
    return Events(order.options.on_event, facts, root.grid(grid).folder / EVENTS_LOG, screen)


def _set_aside(cells: Iterable[PlannedCell], root: Root, screen: Screen) -> None:
    """Move the earlier runs of cells that run again out of the way."""
    for cell in cells:
        if cell.state in (State.drifted, State.done):
            old = cell.row.fingerprint if cell.row is not None else None
            moved = root.archive_run(cell.key, old, published_attempt=cell.published_attempt)
            screen.message(f"{cell.key}: the earlier run now lies in {moved}")


def _end(order: LaunchRequest, queue: Queue, stop: Stop, screen: Screen, events: Events) -> int:
    """Show how a launch ended; returns the exit code."""
    show_failures(queue, order.root, screen)
    was_stopped = stop.is_asked()
    if was_stopped and not order.options.limits:
        screen.message("Stopped. The same command continues where every cell stands.", "yellow")
    if order.options.limits and queue.num_waiting and not was_stopped:
        events.budget_reached(
            f"{order.options.limits}: {cells_text(queue.num_waiting)} would pass it."
        )
    plan = order.plan()
    code = show_end(plan, order, screen)
    if code != EXIT_DONE and queue.keys("failed") and not was_stopped:
        code = EXIT_FAILED  # a full disk leaves no row that would say so
    events.finished(code, plan.counts())
    return code


def checked(order: LaunchRequest, cells: Sequence[PlannedCell]) -> LaunchRequest:
    """The order with no GPU reserved where none is used, once everything it needs was looked at.

    Raises:
        ValueError, OSError: of options, cards, data or disk; nothing was started.
    """
    check_parts_of_cards(order.options, cells)
    order = replace(order, options=_with_device(order.options, cells))
    configs = {cell.key: cell.config for cell in cells}
    check_cards(configs, order.options, card_gib(order.options))
    check_data(cells)
    check_disk(order.root.folder, cells, running=max(1, order.options.concurrency))
    return order


def announcement(title: str, cells: Sequence[PlannedCell], options: LaunchOptions) -> str:
    """What a launch is about to do, and for how long where that is known."""
    text = f"{title}: {cells_text(len(cells))} to run"
    seconds = [cell.seconds for cell in cells if cell.seconds is not None]
    if len(seconds) < len(cells):
        return text
    if options.backend != "inline" and (options.backend != "ray" or options.ray_address):
        return f"{text}, about {about(sum(seconds))} of work one after the other"
    cores = 1 if options.backend == "inline" else available_cores()
    needs = max(options.ranks * options.cpus_for(cell.config, "cpu") for cell in cells)
    slots = max(1, min(cores // needs, options.concurrency or cores))
    length = about(seconds_together(seconds, slots))
    return f"{text}, about {length} on {quantity(cores, 'idle core')}"


def _with_device(options: LaunchOptions, cells: Sequence[PlannedCell]) -> LaunchOptions:
    """The options, with no GPU reserved for cells that all train on the CPU.

    Raises:
        ValueError: a GPU would be reserved that no cell uses.
    """
    if any(cell.config.run.device != "cpu" for cell in cells):
        return options
    if options.gpus_per_rank > 0:
        raise ValueError(
            f"gpus_per_rank={options.gpus_per_rank:g} reserves GPUs that run.device=cpu never "
            "uses; say gpus_per_rank=0, or leave one of the two away."
        )
    return replace(options, gpus_per_rank=0.0)


def _run(
    order: LaunchRequest,
    plan: Plan,
    cells: Sequence[PlannedCell],
    stop: Stop,
    screen: Screen,
    events: Events,
) -> Queue:
    """Run the cells on the back end that the options name; returns how each of them ended."""
    options, root = order.options, order.root
    # Cells in this process have imported the checkout already; a copy could not change them.
    code = "" if options.backend == "inline" else str(snapshot_code(root.code))
    trials = [replace(trial_of(cell, order, stop.path), code=code) for cell in cells]
    lengths = {cell.key: work(cell.config) for cell in cells}
    trials = in_start_order(trials, lengths, first_tables(plan))
    screen.expect(lengths)
    limit = _limit(order, plan, cells, screen) if options.limits else None
    queue = queue_of(trials, options, events, limit)
    folder = root.grid(plan.grid.name).folder
    context = LaunchContext(options, folder, trials, stop, screen, limit)
    watching = limit.watching(stop, events.budget_reached) if limit else nullcontext()
    with stop.listening(), watching, backend(options.backend).pools(context) as pools:
        run_queue(queue, pools, stop, screen)
    return queue


def _limit(
    order: LaunchRequest, plan: Plan, cells: Sequence[PlannedCell], screen: Screen
) -> Allowance:
    """What `budget` and `until` leave for the cells; shows what of it is spent."""
    forecasts = forecast(
        plan, cells, known_timings(cells, order.root, order.options), order.options
    )
    limit = allowance_of(plan, forecasts, order.options)
    unit = unit_of(forecasts)
    unknown = len(cells) - len(limit.seconds)
    screen.message(
        f"{order.options.limits}: {digits(limit.spent / 3600)} {unit} are spent"
        + (f"; {cells_text(unknown)} of unknown length start while any are left" if unknown else "")
    )
    return limit


def queue_of(
    trials: Sequence[Trial],
    options: LaunchOptions,
    listener: Listener,
    limit: Allowance | None = None,
) -> Queue:
    """A queue that tells what happens, repeats failures as the options say, and leaves rows."""
    retries = None if options.retries < 0 else options.retries
    return Queue(trials, listener=listener, give_up=publish_failure, retries=retries, limit=limit)


def trial_of(cell: PlannedCell, order: LaunchRequest, stop_file: Path) -> Trial:
    """The trial of a planned cell."""
    options, root = order.options, order.root
    commit, is_dirty = checkout_state()
    return Trial(
        key=cell.key,
        config_json=cell.config_json,
        fingerprint=cell.fingerprint,
        root=root.address,
        root_scratch=root.scratch,
        backend=options.backend,
        stop_file=str(stop_file),
        published_attempt=cell.published_attempt,
        ranks=options.ranks,
        cpus_per_rank=options.cpus_for(cell.config, "cpu"),
        cpus_beside_gpu=options.cpus_for(cell.config, "cuda"),
        gpus_per_rank=max(0.0, options.gpus_per_rank),
        hang_minutes=options.hang_minutes,
        cwd=str(Path.cwd()),
        git_commit=commit,
        git_dirty=is_dirty,
    )


def first_tables(plan: Plan) -> dict[str, int]:
    """What each cell is needed for first, by key: tables of the first seed, then of the second.

    Cells that others hold come last, so that they are not waited for.
    """
    tables = tables_of(plan.grid)
    index_of: dict[Cell, int] = {}
    for index, table in enumerate(tables):
        for cell in table.cells:
            index_of.setdefault(replace(cell, seed=0), index)
    seeds = list(dict.fromkeys(cell.seed for cell in plan.grid.cells))
    last = len(seeds) * len(tables)
    ranks = {cell.key: last for cell in plan.cells if cell.state is State.running}
    for cell in plan.grid.cells:
        if (first := index_of.get(replace(cell, seed=0))) is not None:
            ranks.setdefault(cell.key, seeds.index(cell.seed) * len(tables) + first)
    return ranks


def publish_failure(trial: Trial, outcome: Outcome) -> None:
    """The row of a cell whose retries are used up."""
    root = root_of(trial)
    newest = root.newest_attempt(trial.key)
    # An attempt that failed before it began has number 0; its row must be newer than all others.
    attempt = max(outcome.attempt, newest, trial.published_attempt + 1)
    error = (Failure(outcome.failure), outcome.error_text)
    try:
        publish(root, failed_row(trial, attempt, error))
    except StaleAttempt:
        return


def show_failures(queue: Queue, root: Root, screen: Screen) -> None:
    """Show what failed and why, what to do, and where the log is."""
    for key in queue.keys("failed"):
        outcome = queue.outcome(key)
        advice = advice_on(Failure(outcome.failure), outcome.error_text)
        screen.message(f"failed  {key}: {outcome.failure}: {outcome.error_text}", "red")
        log = root.log_hint(key, outcome.attempt) if outcome.attempt else _log_of_job(root, key)
        screen.message(f"        {advice} Log: {log}")
    if queue.closed_because:
        screen.message(f"No further cell was started: {queue.closed_because}", "red")


def _log_of_job(root: Root, key: str) -> str:
    """Where the log of a cell is of which no attempt began."""
    logs = [log for log in job_logs(key, root.folder / "grids") if log.exists()]
    return str(logs[-1]) if logs else "none, since no attempt began"


def show_end(plan: Plan, order: LaunchRequest, screen: Screen) -> int:
    """Show the last lines; returns the exit code. Both follow from the files under the root."""
    plan, problem = with_queued_jobs(plan)
    if problem:
        screen.message(problem, "yellow")
    numbers = plan.counts()
    counts = ", ".join(f"{number} {state}" for state, number in numbers.items() if number)
    screen.message(f"{plan.grid.name}: {counts} of {cells_text(len(plan.cells))}", "bold")
    screen.message(
        f"rows {order.root.results('rows').address}, runs and logs {order.root.address}/runs"
    )
    if plan.count(State.drifted):
        screen.message("Drifted cells are left alone; rerun=drifted runs them again.", "magenta")
    if order.options.limits and plan.count(State.done) < len(plan.cells):
        for line in entries_text(plan, set(plan.keys(State.done)), "complete"):
            screen.message(line)
        screen.message(
            f"{order.options.limits} leaves the rest; a launch with more goes on from here.",
            "yellow",
        )
    return exit_code(plan)
