"""What a launch shows: a live table in a terminal, one line per event elsewhere."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.display.format import STYLES, about, cells_text, clock, fraction, percent, speed
from orchestrator.display.waiting import waiting
from orchestrator.execution.queue import Queue
from orchestrator.storage.file_lock import background_thread
from orchestrator.storage.root import Root
from orchestrator.storage.run_state import Progress
from orchestrator.trial import Outcome, Trial

_REFRESH_SECONDS = 1.0
_PLAIN_SECONDS = 30.0  # between two lines of progress where the output is no terminal
_LEAST_PART = 0.05  # of the work, from which its pace is known


class Screen:
    """Shows a launch; also the listener of its queue.

    Args:
        console: where to; whether it is a terminal decides about the live table.
        root: of the runs.
    """

    def __init__(self, console: Console, root: Root) -> None:
        self._console = console
        self._root = root
        self._work: Mapping[str, float] = {}
        self._at_start: dict[str, float] = {}  # part that earlier launches did, by key
        self._ended: set[str] = set()
        self._said: dict[str, str] = {}  # the newest line on progress, by key
        self._done = self._failed = 0
        self._running: dict[str, tuple[Trial, float]] = {}
        self._started = time.monotonic()
        self._first_start: float | None = None  # of a cell: starting Ray is no work
        self._lock = threading.Lock()  # of `_running`, which the thread of `live` reads

    def expect(self, work: Mapping[str, float]) -> None:
        """Set the cells of the launch: the length of each in any unit, by key."""
        self._work = work

    def message(self, text: str, style: str = "") -> None:
        """Show a line of text."""
        self._console.print(Text(text, style=style), soft_wrap=True)

    def waiting(self, what: str, *, quiet_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Say what the launch waits for until the block ends; not inside `live`."""
        return waiting(self._console, what, quiet_seconds=quiet_seconds)

    def started(self, trial: Trial) -> None:
        """Show that an attempt began."""
        progress = self._root.cached_progress(trial.key) or Progress()
        with self._lock:
            self._at_start.setdefault(trial.key, progress.fraction)
            self._running[trial.key] = (trial, time.monotonic())
            self._first_start = self._first_start or time.monotonic()
        if not self._console.is_terminal:
            self.message(f"{self._count()} start    {trial.key}")

    def ended(self, trial: Trial, outcome: Outcome, *, retried: bool) -> None:
        """Show how an attempt ended."""
        with self._lock:
            _, since = self._running.pop(trial.key, (trial, time.monotonic()))
            if not retried:
                self._ended.add(trial.key)
            self._done += outcome.status == "done"
            self._failed += outcome.status == "failed" and not retried
        seconds = clock(time.monotonic() - since)
        word = "retry" if retried else outcome.status
        detail = f"mIoU {percent(outcome.best_miou_percent)}" if outcome.status == "done" else ""
        if outcome.status == "failed":
            detail = f"{outcome.failure}: {_first_line(outcome.error_text)}"
            if retried and outcome.next_memory:
                detail = f"with run.memory={outcome.next_memory} after {detail}"
        if outcome.status == "busy":
            detail = outcome.error_text
        line = f"{self._count()} {word:8} {trial.key}  {seconds}  {detail}".rstrip()
        self.message(line, STYLES.get(word, ""))

    def put_back(self, trial: Trial) -> None:
        """Show a cell no longer as running."""
        with self._lock:
            self._running.pop(trial.key, None)

    def live(self, queue: Queue) -> AbstractContextManager[None]:
        """Keep the table or the progress lines fresh until the block ends."""
        show = self._redraw if self._console.is_terminal else self._report
        return background_thread(partial(show, queue), "screen")

    def _redraw(self, queue: Queue, stop: threading.Event) -> None:
        """The live table of a terminal."""
        live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # what an inline cell prints must not wait for the table
            redirect_stderr=False,
        )
        with live:
            while not stop.wait(_REFRESH_SECONDS):
                live.update(self.picture(queue), refresh=True)

    def _report(self, queue: Queue, stop: threading.Event) -> None:
        """Print a line for each running cell from time to time."""
        while not stop.wait(_PLAIN_SECONDS):
            for line in self.news():
                self.message(line)
            if pace := self._pace():
                self.message(f"{self._count()} {pace}")

    def news(self) -> Iterator[str]:
        """A line for each running cell that is further than when it last had one."""
        for trial, _ in self._now():
            progress = self._root.cached_progress(trial.key)
            words = _words(progress) if progress is not None else ""
            if words != self._said.get(trial.key, ""):
                self._said[trial.key] = words
                yield f"{self._count()} running  {trial.key}  {words}"

    def picture(self, queue: Queue) -> Group:
        """The running cells above the counts."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("cell", "epoch", "done", "mIoU", "images/s", "left", "since"):
            table.add_column(name, justify="left" if name == "cell" else "right", no_wrap=True)
        table.add_column(no_wrap=True)  # work between two trainings; most cells have none
        for trial, since in self._now():
            progress = self._root.cached_progress(trial.key) or Progress()
            table.add_row(
                trial.key,
                f"{progress.epoch}/{progress.epochs}" if progress.epochs else "-",
                fraction(progress),
                percent(progress.miou_percent),
                speed(progress),
                clock(progress.seconds_left),
                clock(time.monotonic() - since),
                progress.work,
            )
        waiting = len(queue.waiting)
        counts = f"{self._done} done, {len(self._running)} running, {waiting} waiting"
        failed = f", {self._failed} failed" if self._failed else ""
        elapsed = clock(time.monotonic() - self._started)
        text = f"{counts}{failed} of {cells_text(len(self._work))}; {elapsed}"
        pace = self._pace()
        return Group(table, Text(f"{text}; {pace}" if pace else text, "bold"))

    def _pace(self) -> str:
        """Part of all work that is done, and the time left at the pace of this launch."""
        with self._lock:
            parts = dict(self._at_start)  # of cells that ended as well, if they began here
            parts |= dict.fromkeys(self._ended, 1.0)
            running = list(self._running)
            at_start = dict(self._at_start)
        for key in running:
            progress = self._root.cached_progress(key)
            parts[key] = max(parts[key], progress.fraction if progress else 0.0)
        total = sum(self._work.values())
        done = sum(self._work.get(key, 0.0) * part for key, part in parts.items())
        ours = done - sum(self._work.get(key, 0.0) * part for key, part in at_start.items())
        if self._first_start is None or not total or ours < _LEAST_PART * total:
            return ""
        left = (time.monotonic() - self._first_start) * (total - done) / ours
        return f"{100 * done / total:.0f} % of the work, about {about(left)} left"

    def _now(self) -> Sequence[tuple[Trial, float]]:
        with self._lock:
            return list(self._running.values())

    def _count(self) -> str:
        total = len(self._work)
        return f"[{self._done:{len(str(total))}}/{total}]"


def _words(progress: Progress) -> str:
    """Progress in a plain line."""
    miou = f", mIoU {percent(progress.miou_percent)}" if progress.miou_percent is not None else ""
    is_over = bool(progress.total_steps) and progress.step >= progress.total_steps
    left = ""
    if is_over:
        left = ", evaluating and publishing"
    elif progress.seconds_left is not None:
        left = f", {clock(progress.seconds_left)} left"
    rate = f", {speed(progress)} images/s" if progress.images_per_second else ""
    epoch = f"epoch {progress.epoch}/{progress.epochs} ({fraction(progress)})"
    work = f", {progress.work}" if progress.work else ""
    return f"{epoch}{work}{miou}{rate}{left}"


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")
