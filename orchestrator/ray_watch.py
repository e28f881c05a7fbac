"""Notice that the own Ray died under a launch; Tune would wait for it for ever."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOK_SECONDS = 1.0


@contextmanager
def watched(on_death: Callable[[], None]) -> Iterator[None]:
    """Watch the raylet that this process started, until the block ends.

    Args:
        on_death: called from a thread, once, when it is gone.
    """
    pid = _raylet()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(_LOOK_SECONDS):
            if not _lives(pid):
                on_death()
                return

    thread = threading.Thread(target=look, name="watch the raylet", daemon=True)
    if pid is not None:
        thread.start()
    try:
        yield
    finally:
        stop.set()


def _raylet() -> int | None:
    """Process of the raylet among our children; None when we joined somebody else's Ray."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")[0:3]
        except OSError:
            continue
        if name == "raylet" and int(rest.split()[1]) == os.getpid():
            return int(path.parent.name)
    return None


def _lives(pid: int | None) -> bool:
    """Whether a process runs; one that is only not yet reaped does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
