"""Shows a grid until it ends or Ctrl-C: a live table, or lines where the output is no terminal."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console, RenderableType
from rich.live import Live

from orchestrator.display.status import status_picture, totals
from orchestrator.planning.plan import Plan, State

_SECONDS = 2.0  # between two looks, at least
_SHARE = 4.0  # a look may take a fifth of the time
_PLAIN_SECONDS = 30.0
_FRAME = 6  # lines around the cells: title, head, and two of up to two lines each


def watch(look: Callable[[], Plan], console: Console) -> Plan:
    """Show a grid until nothing of it can change any more.

    Args:
        look: reads the states now; its errors end the watch.
        console: a terminal gets a picture of its own that vanishes at the end, anything else a
            line whenever the counts change.

    Returns:
        The states at the end.
    """
    with _interruptible() as stopped:
        if not console.is_terminal:
            return _lines(look, console, stopped)
        plan = look()
        # The terminal's alternate screen: what was there before comes back at the end.
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                # What is printed is written as a whole, so an old picture never shows through.
                live.update(_picture(plan, console), refresh=True)
                if _is_over(plan) or stopped.is_set():
                    break
                plan = _next(look, plan, stopped, _SECONDS)
    console.print(_picture(plan, console))
    return plan


def _picture(plan: Plan, console: Console) -> RenderableType:
    """What fits on the screen."""
    room = max(console.height - _FRAME, 1)
    return status_picture(plan, width=console.width, most=room, has_reasons=False)


def _lines(look: Callable[[], Plan], console: Console, stopped: threading.Event) -> Plan:
    """A line whenever something changed."""
    plan, shown = look(), ""
    while True:
        text = totals(plan)
        if text != shown:
            console.print(text, highlight=False, soft_wrap=True)
            shown = text
        if _is_over(plan) or stopped.is_set():
            return plan
        plan = _next(look, plan, stopped, _PLAIN_SECONDS)


def _next(look: Callable[[], Plan], plan: Plan, stopped: threading.Event, seconds: float) -> Plan:
    """The states after a pause; the old ones if Ctrl-C came first."""
    started = time.monotonic()
    if stopped.wait(seconds):
        return plan
    looked = time.monotonic()
    later = look()
    stopped.wait(max(0.0, _SHARE * (time.monotonic() - looked) - (looked - started)))
    return later


def _is_over(plan: Plan) -> bool:
    """Whether every cell is done, or has failed or drifted for good."""
    return all(cell.state in (State.done, State.failed, State.drifted) for cell in plan.cells)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the terminal is always left as it was."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
