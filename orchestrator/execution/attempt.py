"""One attempt at a cell: lock its run directory, train, and publish its row or its failure."""

import logging
import os
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from datasets.errors import Unreachable
from datasets.files import atomic_write
from datasets.location import spec_of
from orchestrator.execution.provenance import CHECKOUT, current_provenance
from orchestrator.execution.stop import stop_asked
from orchestrator.execution.timing import timed, timed_apart
from orchestrator.execution.watchdog import hang_watchdog, rank_log, recorded_outcome
from orchestrator.failures import POLICIES, Failure, StaleAttempt, classify, next_memory
from orchestrator.results.history import publish_history
from orchestrator.results.row import Attempt, Row
from orchestrator.results.store import cell_rows, done_rows, publish
from orchestrator.storage.file_lock import Busy
from orchestrator.storage.open import root_of
from orchestrator.storage.paths import RunPaths
from orchestrator.storage.root import Root, RunOwner
from orchestrator.storage.run_state import append_event
from orchestrator.trial import Outcome, Trial
from trainer.config.compose import from_json
from trainer.config.schema import Memory, TrainConfig
from trainer.run_log import Summary


def has_done_row(root: Root, trial: Trial, newest: int) -> bool:
    """Whether an attempt after the trial's `published_attempt` is done under its configuration.

    Args:
        root: of the results.
        trial: of the cell.
        newest: number of the newest attempt in the run directory; where it is not after
            `published_attempt` the rows of other cells are not even listed.
    """

    def is_done(rows: Iterable[Row]) -> bool:
        return any(
            row.status == "done"
            and row.fingerprint == trial.fingerprint
            and row.attempt > trial.published_attempt
            for row in rows
        )

    first = trial.published_attempt + 1
    # The first one even if none has begun: its run directory may have been removed since.
    numbers = range(first, max(first, newest) + 1)
    if is_done(done_rows(root, trial.key, numbers)):
        return True
    return newest >= first and is_done(cell_rows(root, trial.key))  # of compacted files, too


def done_row(trial: Trial, number: int, summary: Summary, started: datetime) -> Row:
    """The row of a complete run."""
    class_names = spec_of(from_json(trial.config_json).data).class_names
    return Row.from_summary(_attempt(trial, number, started), summary, class_names)


def failed_row(
    trial: Trial, number: int, error: tuple[Failure, str], started: datetime | None = None
) -> Row:
    """The row of a failed attempt that is not repeated.

    Args:
        trial: the cell.
        number: of the attempt.
        error: its class and its text.
        started: when it began, if known.
    """
    return Row.from_failure(_attempt(trial, number, started or datetime.now(UTC)), *error)


def _attempt(trial: Trial, number: int, started: datetime) -> Attempt:
    """An attempt of this process, with the code and the machine it ran on."""
    code = current_provenance()
    runs_copy = bool(trial.code) and Path(trial.code).resolve() == CHECKOUT
    # A copy of the code has no git repository; the launch says of which commit it is. A node that
    # does not see the copy runs its own checkout, and asks git about that.
    if runs_copy or (trial.git_commit and not trial.code):
        code = replace(code, git_commit=trial.git_commit, git_dirty=trial.git_dirty)
    if trial.backend != "ray":
        code = replace(code, ray=None)
    return Attempt(trial, number, started, code)


@dataclass(frozen=True)
class _Run:
    """A trial with its root and its configuration."""

    trial: Trial
    root: Root
    config: TrainConfig


DYING_SECONDS = 20.0  # for so long a worker may hold its lock after its launch was killed


def run_trial(
    trial: Trial,
    should_stop: Callable[[], bool] | None = None,
    *,
    wait_seconds: float = DYING_SECONDS,
) -> Outcome:
    """Run a cell until it is done, fails, or is asked to stop; every rank of it calls this.

    A probe's steps are timed instead. Rank 0 owns the run directory and writes; a finished cell is
    left as it is.

    Args:
        trial: what to run.
        should_stop: asked once per step on rank 0; None asks for the trial's stop file.
        wait_seconds: for an owner of the run directory that may just be dying.

    Returns:
        How it ended; ranks above 0 only ever say done or stopped.

    Raises:
        Exception: on ranks above 0, the error there, after it was written to the attempt's folder.
    """
    from trainer.hardware.gpu import DeviceError

    run = _Run(trial, root_of(trial), from_json(trial.config_json))
    asked = should_stop or stop_asked(Path(trial.stop_file))
    rank = int(os.environ.get("RANK", "0"))
    try:
        check_trial_device(trial)
    except DeviceError as error:
        if rank > 0:
            raise
        return Outcome("failed", 0, classify(error).value, str(error))
    if trial.is_probe:
        return _timed(trial)
    if rank > 0:
        return _run_other_rank(run, asked)
    return _run_owned(run, asked, wait_seconds)


def _run_owned(run: _Run, asked: Callable[[], bool], wait_seconds: float) -> Outcome:
    """Run the part of rank 0, once it owns the run directory; see `run_trial`."""
    trial = run.trial
    owned = run.root.own_run(
        trial.key, "a start", wait_seconds=wait_seconds, stop_file=trial.stop_file
    )
    try:
        with owned as owner:
            if not has_done_row(run.root, trial, owner.newest):
                return _run_first_rank(run, owner, lambda: asked() or owner.must_end())
            outcome = Outcome("done", owner.newest, is_published=True)
    except (Busy, StaleAttempt) as busy:
        outcome = Outcome("busy", error_text=str(busy))
    except Unreachable as error:
        outcome = Outcome("failed", 0, classify(error).value, str(error))
    _broadcast_attempt(None, run.config)  # the other ranks wait for a number; None: no training
    return outcome


def check_trial_device(trial: Trial) -> None:
    """Refuse a machine whose GPU torch cannot use, before anything of the run is written.

    Raises:
        DeviceError: a GPU is here, reserved or asked for, and torch cannot use it.
    """
    from trainer.hardware.gpu import check_device

    gpus = trial.gpus_per_rank
    check_device(
        from_json(trial.config_json).run.device,
        requested=f"gpus_per_rank={gpus:g}" if gpus else "",
        index=int(os.environ.get("LOCAL_RANK", "0")),
    )


def _timed(trial: Trial) -> Outcome:
    """Time the steps of a trial, and leave nothing."""
    try:
        if trial.ranks == 1:
            timing = timed_apart(trial.config_json, os.environ)
        else:  # the ranks have met in these processes
            with tempfile.TemporaryDirectory(prefix="probe-") as folder:
                timing = timed(from_json(trial.config_json), Path(folder))
    except Exception as error:  # noqa: BLE001 - becomes an outcome
        return Outcome("failed", 0, classify(error).value, str(error))
    return Outcome("done", timing=timing.to_json())


def _run_first_rank(run: _Run, owner: RunOwner, should_stop: Callable[[], bool]) -> Outcome:
    """Run the part of rank 0, which owns the run directory."""
    number = _begin(owner, run.trial, run.config.run.memory)
    started = datetime.now(UTC)
    try:
        with _logged(owner.paths.log(number)):
            outcome = _train(run, owner, number, should_stop)
    except StaleAttempt as error:
        outcome = Outcome("busy", number, error_text=str(error))
    except Exception as error:  # noqa: BLE001 - becomes a failed row with its traceback
        outcome = _fail(run, number, error, started)
    with suppress(OSError):  # on a full disk the outcome is still returned to the launch
        _end(owner.paths, outcome)
    owner.end(outcome)
    return outcome


def _train(run: _Run, owner: RunOwner, number: int, should_stop: Callable[[], bool]) -> Outcome:
    """Train, and publish if the run is complete."""
    trial, started = run.trial, datetime.now(UTC)
    _broadcast_attempt(number, run.config)
    # Here and not above: planning reads this folder's modules without torch.
    from trainer.run import train

    # The watchdog kills the process after this call, and no `finally` would give up the lock.
    def ended(outcome: Outcome) -> None:
        _end(owner.paths, outcome)
        owner.release()

    log = rank_log(owner.paths, number)
    with owner.training(), hang_watchdog(trial, number, log, ended) as heartbeat:
        summary = train(
            run.config, owner.paths.folder, should_stop=should_stop, heartbeat=heartbeat
        )
    owner.save()  # before the row: what a row calls done must be stored, and of the newest attempt
    if summary.status == "stopped":
        return Outcome("stopped", number, seconds=summary.seconds)
    publish_history(run.root, trial.key, number, owner.paths.folder)
    publish(run.root, done_row(trial, number, summary, started), is_newest=True)
    return Outcome(
        "done",
        number,
        best_miou_percent=summary.best_miou_percent,
        seconds=summary.seconds,
        is_published=True,
    )


def _fail(run: _Run, number: int, error: Exception, started: datetime) -> Outcome:
    """The outcome of a failed attempt; publishes its row if its class is never retried."""
    outcome = _outcome_of(error, run, number, f"{type(error).__name__}: {error}")
    text = traceback.format_exc()
    with suppress(OSError), run.root.run(run.trial.key).log(number).open("a") as log:
        log.write(text)
    if outcome.failure == Failure.node_lost.value:
        # All that this rank sees is that another one is gone, which may have written why.
        other = recorded_outcome(run.root, run.trial.key, number - 1)
        outcome, text = (other, other.error_text) if other else (outcome, text)
    failure = Failure(outcome.failure)
    policy = POLICIES[failure]
    is_final = policy.retries == 0 and policy.leaves_row and not isinstance(error, StaleAttempt)
    if is_final:
        with suppress(OSError, StaleAttempt):
            row = failed_row(run.trial, number, (failure, text), started)
            publish(run.root, row)
            outcome = replace(outcome, is_published=True)
    return outcome


def _outcome_of(error: Exception, run: _Run, number: int, text: str) -> Outcome:
    """The outcome of an attempt that an error ended on this rank."""
    rung = next_memory(error, run.config.run.memory)
    next_rung = rung.value if rung else ""
    return Outcome("failed", number, classify(error).value, text, next_memory=next_rung)


def _run_other_rank(run: _Run, should_stop: Callable[[], bool]) -> Outcome:
    """Run the part of a rank above 0."""
    number = _broadcast_attempt(None, run.config)
    if number is None:
        return Outcome("stopped")
    from trainer.run import train

    key, paths, rank = run.trial.key, run.root.run(run.trial.key), int(os.environ["RANK"])

    # Under a bucket this may be the first rank on its machine.
    paths.attempt(number).mkdir(parents=True, exist_ok=True)
    paths.log(number).parent.mkdir(parents=True, exist_ok=True)

    def ended(outcome: Outcome) -> None:
        (paths.attempt(number) / f"rank-{rank:04d}.json").write_text(outcome.to_json())

    log = rank_log(paths, number)
    try:
        with hang_watchdog(run.trial, number, log, ended) as heartbeat:
            folder = run.root.folder_of_rank(key, number, rank)
            summary = train(run.config, folder, should_stop=should_stop, heartbeat=heartbeat)
    except Exception as error:
        # The launch sees only that this process died; the file tells it the class of the failure.
        text = f"rank {rank}: {error!r}"
        with suppress(OSError):
            ended(_outcome_of(error, run, number, text))
            with log.open("a") as file:
                file.write(traceback.format_exc())
        raise
    return Outcome(summary.status, number)


def _broadcast_attempt(number: int | None, config: TrainConfig) -> int | None:
    """Tell rank 0's attempt number to all ranks; None means that none of them trains."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return number
    import torch.distributed as dist

    from trainer import determinism
    from trainer import distributed as ranks

    determinism.enable_determinism(config)
    ranks.init_process_group(config.run)
    box = [number]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _begin(owner: RunOwner, trial: Trial, memory: Memory) -> int:
    """Make the folder of the next attempt and write its start to the run's events.

    Raises:
        StaleAttempt, Unreachable: nothing began.
    """
    number, paths = owner.begin(trial.published_attempt), owner.paths
    made_by = _attempt(trial, number, datetime.now(UTC)).provenance
    # An existing folder would mean that two attempts have one number.
    paths.attempt(number).mkdir(parents=True, exist_ok=False)
    paths.log(number).parent.mkdir(exist_ok=True)
    append_event(
        paths,
        "started",
        attempt=number,
        host=os.uname().nodename,
        pid=os.getpid(),
        backend=trial.backend,
        ranks=trial.ranks,
        fingerprint=trial.fingerprint,
        memory=memory.value,
        code=Path(trial.code).name,
        git_commit=made_by.git_commit,
        git_dirty=made_by.git_dirty,
    )
    owner.start()
    return number


def _end(paths: RunPaths, outcome: Outcome) -> None:
    """Write the outcome of an attempt to its folder, and its end to the run's events."""
    atomic_write(paths.outcome(outcome.attempt), outcome.to_json())
    facts = {"failure": outcome.failure, "error": outcome.error_text} if outcome.failure else {}
    append_event(paths, outcome.status, attempt=outcome.attempt, **facts)


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send the messages of our packages and of warnings to the attempt's log."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("trainer", "datasets", "py.warnings")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
