"""One line that says what a command waits for, and for how long already."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.display.format import clock
from orchestrator.storage.file_lock import background_thread

SHORT_SECONDS = 3.0  # of a wait for another program that is not worth a line
_REFRESH_SECONDS = 1.0
_PLAIN_SECONDS = 30.0  # between two lines where the output is no terminal


def waiting(
    console: Console,
    what: str,
    *,
    progress: Callable[[], str] = str,
    quiet_seconds: float = 0.0,
) -> AbstractContextManager[None]:
    """Say what is waited for until the block ends.

    In a terminal the line counts seconds and vanishes at the end; elsewhere it is printed once, and
    again from time to time.

    Args:
        console: where to.
        what: is waited for, such as "Starting Ray".
        progress: how far it is, asked whenever the line is shown; empty where that is not known.
        quiet_seconds: a shorter wait is not worth a line.
    """
    show = _redraw if console.is_terminal else _print
    if not quiet_seconds and not console.is_terminal:
        # At once and from this thread, so that no line of the block comes before it.
        console.print(Text(f"{what} ..."), soft_wrap=True)
    return background_thread(partial(show, console, what, progress, quiet_seconds), "waiting")


def _redraw(
    console: Console,
    what: str,
    progress: Callable[[], str],
    quiet_seconds: float,
    stop: threading.Event,
) -> None:
    """The line of a terminal."""
    started = time.monotonic()
    if stop.wait(quiet_seconds):
        return
    live = Live(
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with live:
        while True:
            seconds = time.monotonic() - started
            live.update(Text(_line(what, seconds, progress()), "dim"), refresh=True)
            if stop.wait(_REFRESH_SECONDS):
                return


def _print(
    console: Console,
    what: str,
    progress: Callable[[], str],
    quiet_seconds: float,
    stop: threading.Event,
) -> None:
    """The lines elsewhere."""
    started = time.monotonic()
    if quiet_seconds:
        if stop.wait(quiet_seconds):
            return
        console.print(Text(f"{what} ..."), soft_wrap=True)
    while not stop.wait(_PLAIN_SECONDS):
        line = _line(what, time.monotonic() - started, progress())
        console.print(Text(line), soft_wrap=True)


def _line(what: str, seconds: float, progress: str) -> str:
    return f"{what} ... {clock(seconds)}{f', {progress}' if progress else ''}"
