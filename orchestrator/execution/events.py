"""Tells a command of the user's what happens to a launch, for on_event=CMD; see docs/json.md.

The command gets the event as JSON on its standard input, in a shell and a process group of its
own. It cannot harm the launch: nothing waits for it but the end of the launch, it is killed after
some time, and what goes wrong is said in one line. What it prints is in `events.log`, below the
event.
"""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, TextIO

from orchestrator.execution.queue import Listener
from orchestrator.failures import Failure
from orchestrator.trial import Outcome, Trial

EVENTS_LOG = "events.log"  # in the folder of the grid

_MOST_SECONDS = 30.0  # for one run of the command

EventName = Literal["finished", "first_failure", "stalled", "budget_reached"]


class ListenerWithLines(Listener, Protocol):
    """A listener that can show a line; the screen of a launch is one."""

    def message(self, text: str, style: str = "") -> None:
        """Show a line of text."""


class Events:
    """The events of one launch or worker; a listener of its queue, in front of the screen.

    As a context it says `finished` when an error ends the block, and waits for its commands.

    Args:
        command: a line for the shell; empty: nobody is told.
        facts: that every event has, such as the grid and the root.
        log: file to which the output of the command is appended.
        screen: hears of everything first, and shows what goes wrong with the command.
        most_seconds: how long one run of the command may last.
    """

    def __init__(
        self,
        command: str,
        facts: Mapping[str, str],
        log: Path,
        screen: ListenerWithLines,
        *,
        most_seconds: float = _MOST_SECONDS,
    ) -> None:
        self._command = command
        self._facts = dict(facts) | {"host": socket.gethostname()}
        self._log = log
        self._screen = screen
        self._most_seconds = most_seconds
        self._threads: list[threading.Thread] = []
        self._has_started = self._has_failed = False

    def __enter__(self) -> "Events":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self._has_started:  # else nothing was run that could finish
            self.send("finished", exit_code=None, counts={}, text=str(error))
        for thread in self._threads:
            thread.join()

    def started(self, trial: Trial) -> None:
        """An attempt began."""
        self._has_started = True
        self._screen.started(trial)

    def put_back(self, trial: Trial) -> None:
        """A cell that was started has to wait again."""
        self._screen.put_back(trial)

    def ended(self, trial: Trial, outcome: Outcome, *, retried: bool) -> None:
        """An attempt ended: tell of the first cell that failed for good, and of every hang."""
        self._screen.ended(trial, outcome, retried=retried)
        facts = {"cell": trial.key, "attempt": outcome.attempt, "text": outcome.error_text}
        if outcome.failure == Failure.hang.value:
            self.send("stalled", **facts, is_retried=retried)
        if outcome.status == "failed" and not retried and not self._has_failed:
            self._has_failed = True
            self.send("first_failure", **facts, failure=outcome.failure)

    def finished(self, exit_code: int, counts: Mapping[str, int]) -> None:
        """The launch or worker ended; `counts` are the cells of the grid by state."""
        text = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        self.send("finished", exit_code=exit_code, counts=dict(counts), text=text)

    def budget_reached(self, text: str) -> None:
        """The budget or the moment of the launch is reached; `text` is what the screen shows."""
        self.send("budget_reached", text=text)

    def send(self, name: EventName, **facts: object) -> None:
        """Start the command with an event; returns at once."""
        if not self._command:
            return
        event = {"event": name, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        line = json.dumps(event | self._facts | facts) + "\n"
        thread = threading.Thread(target=self._run, args=(name, line), name=f"event {name}")
        self._threads.append(thread)
        thread.start()

    def _run(self, name: EventName, line: str) -> None:
        """Run the command to its end, or kill it; say in a line what went wrong."""
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a") as log:
                log.write(line)
                log.flush()
                problem = self._problem_of(line, log)
        except OSError as error:
            problem = str(error)
        if problem:
            text = f"on_event, {name}: {problem}; the launch goes on. Output: {self._log}"
            self._screen.message(text, "yellow")

    def _problem_of(self, line: str, log: TextIO) -> str:
        """What went wrong with the command; empty where nothing did."""
        # Its output goes into the file and not through a pipe, on which a process that it left
        # behind could let us wait for ever.
        process = subprocess.Popen(
            self._command,
            shell=True,
            text=True,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the launch
        )
        try:
            process.communicate(line, timeout=self._most_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"the command was killed after {self._most_seconds:g} s"
        code = process.returncode
        return f"the command ended with exit code {code}" if code else ""
