"""Stops a launch: a file that every run looks for, and the signal handlers that create it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from orchestrator.storage.root import Root

EXIT_UNFINISHED = 10
_LOOK_SECONDS = 0.2
# What a signal leads to, for the user.
CELLS_END = "running cells checkpoint and end; once more to leave at once."
PROBE_ENDS = "no further probe starts, jobs in Slurm are cancelled; once more to leave at once."
JOBS_GO_ON = (
    "the jobs go on in Slurm and publish by themselves. The same command watches them again; "
    "`python -m orchestrator cancel {grid} root={root}` ends them."
)


def stop_asked(path: Path) -> Callable[[], bool]:
    """A function that a run calls at every step: whether the stop file exists.

    Args:
        path: the stop file; looked for at most five times a second.
    """
    next_look = 0.0
    is_there = False

    def ask() -> bool:
        nonlocal next_look, is_there
        now = time.monotonic()
        if not is_there and now >= next_look:
            is_there = path.exists()
            next_look = now + _LOOK_SECONDS
        return is_there

    return ask


class Stop:
    """Whether a launch shall end: a signal asked for it, or another launch took the grid over.

    The first SIGINT or SIGTERM makes the stop file: every run that depends on this launch
    checkpoints at its step and ends. The second ends this process at once; its runs die with it and
    later go on from their last checkpoints.

    Args:
        root: where the grid's files lie.
        path: of the stop file, different for every launch.
        text: what a signal leads to, such as `CELLS_END`.
        on_message: shows a line of text to the user.
        is_lost: whether another launch took the grid over.
    """

    def __init__(
        self,
        root: Root,
        path: Path,
        *,
        text: str,
        on_message: Callable[[str], None],
        is_lost: Callable[[], bool],
    ) -> None:
        self.path = path
        self._signal = root.stop_signal(path)
        self._text = text
        self._on_message = on_message
        self._is_lost = is_lost
        self._was_signalled = False
        self._was_asked = False

    def is_asked(self) -> bool:
        """Whether the launch shall start no further cell."""
        return self.ends_cells() or self._is_lost()

    def ends_cells(self) -> bool:
        """Whether running cells shall end, too; after another launch took over they are its own."""
        return self._was_signalled or self._was_asked

    def ask(self, text: str) -> None:
        """Let the running cells checkpoint and end, and show why; the first signal does it, too."""
        self._was_asked = True
        # The stop file, here and where other hosts see it.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self._signal.send()
        self._on_message(text)

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Handle the signals until the block ends, then remove the stop file."""
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._on_signal) for number in handled}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.path.unlink(missing_ok=True)
            self._signal.withdraw()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._was_signalled:
            # Without clean-up, which would wait for the running cells.
            os._exit(EXIT_UNFINISHED)
        self._was_signalled = True
        self.ask(f"{signal.Signals(number).name}: {self._text}")
