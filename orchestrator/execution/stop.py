"""How a launch is asked to stop: a file that every run looks for, and two signals that make it."""

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


def stop_asked(path: Path) -> Callable[[], bool]:
    """A question for every step of a run: does the stop file exist?

    Args:
        path: the stop file; looked for at most five times a second.
    """
    next_look = 0.0
    found = False

    def ask() -> bool:
        nonlocal next_look, found
        now = time.monotonic()
        if not found and now >= next_look:
            found = path.exists()
            next_look = now + _LOOK_SECONDS
        return found

    return ask


class Stop:
    """The wish of a person or a scheduler that a launch ends.

    The first SIGINT or SIGTERM makes the stop file: every run checkpoints at its step and ends.
    The second leaves at once; what runs dies with this process and later goes on from its last
    checkpoint.
    """

    def __init__(self, root: Root, grid: str, launch_id: str, say: Callable[[str], None]) -> None:
        self.path = root.grid(grid).stop_file(launch_id)
        self._signal = root.stop_signal(self.path)
        self._say = say
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Handle the signals until the block ends, then remove the stop file."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.listen()
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.path.unlink(missing_ok=True)
            self._signal.withdraw()

    def listen(self) -> None:
        """Take the signals; once more after `ray.init`, which takes SIGTERM for itself."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(EXIT_UNFINISHED)
        self.ask(signal.Signals(number).name)

    def ask(self, why: str) -> None:
        """Ask every run of this launch to end at its next step."""
        self.mark()
        self._say(f"{why}: running cells checkpoint and end; once more to leave at once.")

    def mark(self) -> None:
        """Make the stop file, here and where other hosts see it."""
        self.asked = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self._signal.send()
