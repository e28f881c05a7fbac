"""Notices a rank that hangs, writes its stacks to the log and ends it; reads how ranks ended."""

import faulthandler
import multiprocessing
import os
import signal
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from orchestrator.execution.stop import EXIT_UNFINISHED
from orchestrator.failures import Failure
from orchestrator.storage.open import root_of
from orchestrator.storage.paths import RunPaths
from orchestrator.storage.root import Root
from orchestrator.trial import Outcome, Trial

_TICK_SECONDS = 1.0
_LATE_SECONDS = 10.0  # a tick later than this means that the process was stopped, not that it hung
_GRACE_SECONDS = 10.0  # at most, before the process is ended: other ranks write their stacks, too
_STEPS = 20.0  # usual step times without a step
_SLOW = 6.0  # times as long until the first step, within an evaluation, and after a checkpoint
_START_SECONDS = 600.0  # at least, until the first step: data is prepared, kernels are built


class Hang(RuntimeError):
    """The run stood still for longer than its steps can explain."""


@dataclass
class HangWatch:
    """Watches one rank; time in which the process was stopped or suspended does not count.

    Attributes:
        floor_seconds: no shorter standstill is a hang; 0 watches nothing.
        on_hang: called from the watching thread, once, with what is wrong.
        log: gets the stacks of all threads.
        problem: what is wrong; empty while nothing is.
    """

    floor_seconds: float
    on_hang: Callable[[str], None]
    log: Path
    problem: str = ""
    _phase: str = "start"
    _awake: float = 0.0
    _moved: float = 0.0
    _heartbeat_at: float = 0.0
    _num_steps: int = 0
    _steps: "deque[float]" = field(default_factory=lambda: deque(maxlen=50))

    def heartbeat(self, phase: str) -> None:
        """Record that the run makes progress; called by the training thread."""
        now = time.monotonic()
        if phase == "step":
            self._num_steps += 1
            if self._phase != "start":
                self._steps.append(now - self._heartbeat_at)
        self._phase, self._heartbeat_at, self._moved = phase, now, self._awake

    def bound_seconds(self) -> float:
        """How long this phase may last without a heartbeat."""
        usual = statistics.median(self._steps) if self._steps else 0.0
        bound = max(self.floor_seconds, _STEPS * usual)
        if self._phase == "start":
            return max(_SLOW * bound, _START_SECONDS)
        return bound if self._phase == "step" else _SLOW * bound

    @contextmanager
    def watching(self) -> Iterator["HangWatch"]:
        """Watch until the block ends."""
        if not self.floor_seconds:
            yield self
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stop,), daemon=True, name="hang watch")
        thread.start()
        try:
            yield self
        finally:
            stop.set()

    def _watch(self, stop: threading.Event) -> None:
        tick = min(_TICK_SECONDS, self.floor_seconds / 10)
        last = time.monotonic()
        while not stop.wait(tick):
            now = time.monotonic()
            # A process that was stopped for an hour did not hang for an hour.
            self._awake += min(now - last, _LATE_SECONDS)
            last = now
            if self._awake - self._moved > self.bound_seconds() and self._is_certain(stop):
                self.on_hang(self.problem)
                return

    def _is_certain(self, stop: threading.Event) -> bool:
        """Write the stacks, wait a little, and say whether there was still no heartbeat."""
        moved, phase = self._moved, self._phase
        standing = self._awake - moved
        self.problem = (
            f"no progress for {standing:.0f} s after {self._num_steps} steps of this attempt "
            f"({phase}); the stack of every rank is in its log"
        )
        with self.log.open("a") as file:
            file.write(f"Hang: {self.problem}\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
            if stop.wait(min(_GRACE_SECONDS, 2 * self.floor_seconds)):
                return False  # an error ended the block; its handler reads the problem
            if self._moved != moved:
                self.problem = ""
                file.write("It moved again.\n")
        return bool(self.problem)


def end_this_process() -> None:
    """Kill this process, and first its data loader workers, which would outlive it.

    With SIGKILL, since a thread that is blocked in a library call reacts to nothing less.
    """
    for child in multiprocessing.active_children():
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def interruptible() -> Iterator[Callable[[str], None]]:
    """A way to raise `Hang` in this thread from another one, which ends a wait in a system call.

    Must be entered by the main thread.
    """
    reasons: list[str] = []

    # After a handler that returns, Python repeats the interrupted system call (PEP 475).
    def raise_it(number: int, frame: FrameType | None) -> None:
        raise Hang(reasons[-1])

    main = threading.get_ident()

    def interrupt(text: str) -> None:
        reasons.append(text)
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, raise_it)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGUSR1, before)


_LEAVE_SECONDS = 30.0  # for an interrupted wait to end


@contextmanager
def hang_watchdog(
    trial: Trial, number: int, log: Path, ended: Callable[[Outcome], None]
) -> Iterator[Callable[[str], None]]:
    """Watch this rank of an attempt; gives the function to call at every sign of progress.

    A hang in a process of the trial's own ends that process. In the process of a launch
    (backend=inline) it raises `Hang`, which ends waits in system calls; where that does not help,
    the launch ends.

    Args:
        trial: the cell.
        number: of the attempt.
        log: of this rank, see `rank_log`.
        ended: writes down how the attempt ended.

    Raises:
        Hang: something broke while or because the run hung.
    """
    # Python lets only the main thread install a signal handler, which the inline case needs.
    is_ours = threading.current_thread() is threading.main_thread()

    def record(text: str) -> None:
        with suppress(OSError):
            ended(Outcome("failed", number, Failure.hang.value, text))

    def kill(text: str) -> None:
        record(text)
        end_this_process()

    watch = HangWatch(60.0 * trial.hang_minutes, kill, log)
    try:
        is_inline = trial.backend == "inline" and is_ours
        with _interrupted_first(watch, record) if is_inline else nullcontext(), watch.watching():
            yield watch.heartbeat
    except Exception as error:
        # A rank whose peer was ended for the same hang sees a lost peer.
        if watch.problem and not isinstance(error, Hang):
            raise Hang(watch.problem) from error
        raise


@contextmanager
def _interrupted_first(watch: HangWatch, record: Callable[[str], None]) -> Iterator[None]:
    """Interrupt a hang in the process of the launch; end the process only if this has no effect."""
    left = threading.Event()
    with interruptible() as interrupt:

        def leave(text: str) -> None:
            interrupt(text)
            if not left.wait(_LEAVE_SECONDS):
                record(text)
                sys.stderr.write(f"{text}. It cannot be interrupted; launch again.\n")
                sys.stderr.flush()
                os._exit(EXIT_UNFINISHED)

        watch.on_hang = leave
        try:
            yield
        finally:
            left.set()


def rank_log(paths: RunPaths, number: int) -> Path:
    """The log of this process's rank, for messages, traceback and stacks."""
    log, rank = paths.log(number), int(os.environ.get("RANK", "0"))
    return log if rank == 0 else log.with_name(f"{log.stem}-rank-{rank:04d}{log.suffix}")


def recorded_outcome(root: Root, key: str, before: int) -> Outcome | None:
    """The outcome that the ranks of an attempt wrote, if any.

    One that says more than that another rank was lost comes first.

    Args:
        root: of the run.
        key: of the cell.
        before: attempts up to this one are ignored.
    """
    number, paths = root.newest_attempt(key), root.local_copy(key)
    if number <= before:
        return None
    files = [paths.outcome(number), *sorted(paths.attempt(number).glob("rank-*.json"))]
    written = [Outcome.from_json(file.read_text()) for file in files if file.exists()]
    telling = [outcome for outcome in written if outcome.failure != Failure.node_lost.value]
    return next(iter(telling or written), None)


def newest_attempt(trial: Trial) -> int:
    """Number of a cell's newest attempt; 0 without one."""
    return root_of(trial).newest_attempt(trial.key)


def outcome_of_dead_process(trial: Trial, before: int, failure: Failure, reason: str) -> Outcome:
    """The outcome of an attempt whose process died: the one it wrote, else why it died.

    Args:
        trial: the cell.
        before: number of its newest attempt before this one.
        failure: class of the death, as far as the one who saw it knows.
        reason: the same in words.
    """
    written = recorded_outcome(root_of(trial), trial.key, before)
    if written is not None and written.status == "failed":
        return written
    newest = newest_attempt(trial)
    return Outcome("failed", newest if newest > before else 0, failure.value, reason)
