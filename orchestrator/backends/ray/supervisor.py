"""Keeps a Ray for the launch: starts the process that holds it, and a new one when Ray dies."""

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from orchestrator.backends.ray.cluster import (
    Cluster,
    ClusterUnreachable,
    driver_environment,
    end_session,
)
from orchestrator.backends.ray.messages import (
    Began,
    Broken,
    Connect,
    Death,
    Ended,
    Submit,
    Work,
)
from orchestrator.execution.provenance import CHECKOUT
from orchestrator.failures import Failure
from orchestrator.trial import Outcome, Trial

_MOST_STARTS = 5  # again, within `_WINDOW_SECONDS`
_WINDOW_SECONDS = 3600.0
_LEAVE_SECONDS = 30.0  # for a Ray on which nothing runs any more
_PAUSE_SECONDS = 1.0  # before the second new start, doubled before each further one
_CALL = "from orchestrator.backends.ray.driver import main; main({})"


class RaySupervisor:
    """Ray Tune on a Ray that is started again, a bounded number of times, when it dies.

    A Ray that the launch only joined is not started again.

    Args:
        wanted: which Ray to start or join.
        log: gets what Ray prints.
        on_message: shows a line of text to the user.
        is_stopping: whether the launch ends, so that no new Ray is worth while.

    Attributes:
        cluster: what the connected Ray offers.

    Raises:
        ClusterUnreachable: no Ray answers, or the own one does not start.
    """

    def __init__(
        self,
        wanted: Connect,
        log: Path,
        *,
        on_message: Callable[[str], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._wanted = wanted
        self._log = log
        self._on_message = on_message
        self._is_stopping = is_stopping
        self._deaths: list[float] = []
        self._at_work: dict[tuple[Work, str], None] = {}
        self._begun: deque[str] = deque()
        self._ended: dict[Work, deque[tuple[str, Outcome | Death]]] = {
            "run": deque(),
            "watch": deque(),
        }
        self._returned: deque[str] = deque()
        log.write_text("")
        self._driver: _Driver | None = None
        self.cluster = self._start()

    def submit(self, trial: Trial, work: Work) -> None:
        """Let Tune start a trial as soon as it has the resources."""
        self._at_work[work, trial.key] = None
        if self._driver is not None:
            self._driver.send(Submit(trial, work))

    def poll(self) -> None:
        """Take what the driver reports.

        Raises:
            ClusterUnreachable: Ray died, and again each time that it was started.
        """
        while self._driver is not None and self._driver.pipe.poll():
            self._take(self._driver.receive())

    def begun(self) -> Iterator[str]:
        """Keys of the cells that Ray had room for since the last call."""
        while self._begun:
            yield self._begun.popleft()

    def ended(self, work: Work) -> Iterator[tuple[str, Outcome | Death]]:
        """Keys of the trials that ended since the last call."""
        while self._ended[work]:
            yield self._ended[work].popleft()

    def returned(self) -> Iterator[str]:
        """Keys of the cells that ran on a Ray that died, since the last call."""
        while self._returned:
            yield self._returned.popleft()

    def close(self) -> None:
        """Let Tune and Ray end, which they do when the trials have ended; else end them."""
        if self._driver is not None:
            self._driver.send(None)
            self._driver.wait(_LEAVE_SECONDS)
            self._driver.end()

    def _take(self, message: Cluster | Began | Ended | Broken) -> None:
        if isinstance(message, Began):
            if message.work == "run":
                self._begun.append(message.key)
        elif isinstance(message, Ended):
            self._at_work.pop((message.work, message.key), None)
            self._ended[message.work].append((message.key, message.outcome))
        elif isinstance(message, Cluster):
            self.cluster = message
        else:
            self._on_death(message.reason)

    def _on_death(self, reason: str) -> None:
        """Give the cells back, and start Ray again unless the launch ends."""
        self._end_driver()
        self._give_back()
        address = self._wanted.options.ray_address
        if address:
            raise ClusterUnreachable(
                f"Ray at ray_address={address} is lost ({reason}); see {self._log}. Launch again "
                "when it answers: every cell goes on from its checkpoint."
            )
        if not self._is_stopping():
            self.cluster = self._start_again(reason)

    def _give_back(self) -> None:
        """Give back all that ran: cells wait again, and what was only watched is watched anew."""
        for work, key in self._at_work:
            if work == "run":
                self._returned.append(key)
            else:
                self._ended[work].append((key, Death(Failure.node_lost, "its Ray died")))
        self._at_work.clear()

    def _start(self) -> Cluster:
        """The first start; a Ray that refuses is not asked again."""
        answer = self._try_start()
        if isinstance(answer, Cluster):
            return answer
        if answer.is_refusal or self._wanted.options.ray_address:
            raise ClusterUnreachable(answer.reason)
        return self._start_again(answer.reason)

    def _start_again(self, reason: str) -> Cluster:
        """Start Ray anew until it is ready.

        Raises:
            ClusterUnreachable: it died too often.
        """
        while True:
            now = time.monotonic()
            self._deaths = [at for at in self._deaths if now - at < _WINDOW_SECONDS] + [now]
            num = len(self._deaths)
            if num > _MOST_STARTS:
                raise ClusterUnreachable(
                    f"Ray died {num} times within an hour, at last because {reason}. Look at "
                    f"{self._log} and for want of memory, disk or processor time; then "
                    "launch again: every cell goes on from its checkpoint. backend=inline needs no "
                    "Ray."
                )
            self._on_message(f"Ray died ({reason}); it is started again, {num} of {_MOST_STARTS}")
            if num > 1:
                time.sleep(_PAUSE_SECONDS * 2 ** (num - 2))
            answer = self._try_start()
            if isinstance(answer, Cluster):
                return answer
            reason = answer.reason

    def _try_start(self) -> Cluster | Broken:
        """Start a driver; what its Ray offers, or why there is none."""
        self._driver = _Driver.start(self._wanted, self._log)
        answer = self._driver.receive()
        if isinstance(answer, Broken):
            self._end_driver()
        assert not isinstance(answer, Began | Ended)
        return answer

    def _end_driver(self) -> None:
        if self._driver is not None:
            self._driver.end()
        self._driver = None


@dataclass(frozen=True)
class _Driver:
    """A running driver and the launch's end of the pipe to it."""

    process: "subprocess.Popen[bytes]"
    pipe: Connection

    @classmethod
    def start(cls, wanted: Connect, log: Path) -> "_Driver":
        """Start one; it has no standard output, so that nothing of Ray's is on the screen."""
        ours, theirs = Pipe()
        with log.open("ab") as output, theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _CALL.format(theirs.fileno())],
                env=driver_environment(wanted.code),
                # Ray puts this folder ahead of all else where workers import.
                cwd=wanted.code or CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                # So that Ctrl-C reaches the launch alone, and `end` finds every process of Ray.
                start_new_session=True,
            )
        driver = cls(process, ours)
        driver.send(wanted)
        return driver

    def send(self, message: Connect | Submit | None) -> None:
        """Send a message; the end of the pipe is seen by `receive`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(message)

    def receive(self) -> Cluster | Began | Ended | Broken:
        """The next message; waits for it."""
        try:
            message: Cluster | Began | Ended | Broken = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return Broken("the process that is connected to it ended")
        return message

    def wait(self, seconds: float) -> None:
        """Wait until the driver has left by itself, which ends the pipe; at most so long."""
        # Not `process.wait`: until `end` the number of the process must name its session.
        give_up = time.monotonic() + seconds
        while self.pipe.poll(max(0.0, give_up - time.monotonic())):
            if isinstance(self.receive(), Broken):
                return

    def end(self) -> None:
        """End the driver and everything of its Ray."""
        end_session(self.process.pid)
        self.process.wait()
        self.pipe.close()
