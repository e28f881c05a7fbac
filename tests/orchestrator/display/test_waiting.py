"""What is printed while a command waits for something."""

import threading
from io import StringIO

from rich.console import Console

from orchestrator.display.waiting import waiting


def test_a_long_wait_is_said_at_once_and_before_what_follows():
    printed = StringIO()
    console = Console(file=printed, width=80)

    with waiting(console, "Starting Ray"):
        console.print("2 cells on Ray")

    assert printed.getvalue().splitlines() == ["Starting Ray ...", "2 cells on Ray"]


def test_a_short_wait_is_not_worth_a_line():
    printed = StringIO()

    with waiting(Console(file=printed), "Waiting for s3://b/p", quiet_seconds=3600.0):
        pass

    assert printed.getvalue() == ""


def test_a_terminal_shows_how_far_it_is_and_forgets_the_line():
    printed, is_shown = StringIO(), threading.Event()

    def progress() -> str:
        if "epoch 3/8" in printed.getvalue():
            is_shown.set()
        return "epoch 3/8"

    with waiting(Console(file=printed, force_terminal=True), "Training", progress=progress):
        assert is_shown.wait(60.0)

    assert "Training ... 0 s, epoch 3/8" in printed.getvalue()
    assert printed.getvalue().endswith("\x1b[1A\x1b[2K")  # the line is erased
