"""The process of a launch that is connected to Ray, and runs Tune there.

Ray ends the process that called `ray.init` when the raylet or the GCS dies, or leaves it waiting
for a minute. So the launch starts this process of its own (`supervisor.py`) and outlives it. The
two send each other messages (`messages.py`) through a pipe; whoever sees its end knows that the
other is gone.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NoReturn

from orchestrator.backends.ray.cluster import (
    Cluster,
    ClusterUnreachable,
    connect,
    end_session,
    lives,
    offer,
    ray_processes,
)
from orchestrator.backends.ray.messages import Broken, Connect, Submit
from orchestrator.options import LaunchOptions

if TYPE_CHECKING:
    from orchestrator.backends.ray.tune import TuneRun

_TICK_SECONDS = 0.05  # between two looks at Tune, and at the processes of Ray
_NODES_SECONDS = 2.0  # between two looks at what a joined Ray has
_START_TICK_SECONDS = 0.2  # between two looks at the processes of a Ray that starts
# Loggers that Tune imports where they are installed, only to count who uses them, for seconds.
_UNUSED = ("wandb", "mlflow", "comet_ml", "aim")


def main(descriptor: int) -> None:
    """Serve a launch until it says that it is over, or is gone.

    Args:
        descriptor: this process's end of the pipe.
    """
    os.set_inheritable(descriptor, False)  # else Ray's processes would hold the pipe open
    # Ray's processes inherit this: a SIGTERM to the whole job (scancel) must reach the launch
    # only, which then lets every run checkpoint.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type] # None: not to be imported
    launch = Connection(descriptor)
    wanted: Connect = launch.recv()
    _serve(launch, wanted.options, _connect(launch, wanted))
    import ray

    ray.shutdown()


def _connect(launch: Connection, wanted: Connect) -> Cluster:
    """Start or join Ray; leaves where that fails."""
    seen: dict[int, str] = {}
    try:
        with _watched_start(launch, seen):
            return connect(wanted.options, wanted.scratch, wanted.code)
    except Exception as error:  # noqa: BLE001 - the launch says it in a sentence
        _leave_if_dead(launch, seen)
        traceback.print_exc()
        named = "" if isinstance(error, ClusterUnreachable) else f"{type(error).__name__}: "
        _leave(launch, Broken(f"{named}{error}", is_refusal=True))


def _serve(launch: Connection, options: LaunchOptions, cluster: Cluster) -> None:
    """Hand the launch's trials to Tune and tell it how they end."""
    # Here and not above: a Ray that does not answer needs none of it.
    from orchestrator.backends.ray.tune import TuneRun

    processes = ray_processes() if cluster.is_own else {}
    tune, nodes = TuneRun(options, cluster), _Nodes(launch, cluster)
    try:
        launch.send(cluster)
        while _obey(launch, tune):
            for message in tune.messages():
                # Looked at after the trials: they die with Ray, which is no failure of theirs.
                _leave_if_dead(launch, processes)
                launch.send(message)
            _leave_if_dead(launch, processes)
            nodes.follow()
        tune.close()
    except (EOFError, BrokenPipeError):
        if cluster.is_own:
            end_session(os.getsid(0))  # the launch was killed, and its Ray follows it
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - whatever breaks Tune ends its use
        _leave_if_dead(launch, processes)
        traceback.print_exc()
        _leave(launch, Broken(f"Ray Tune failed: {type(error).__name__}: {error}"))


def _obey(launch: Connection, tune: "TuneRun") -> bool:
    """Do what the launch asks; False when it asks to leave."""
    while launch.poll(_TICK_SECONDS):
        order: Submit | None = launch.recv()
        if order is None:
            return False
        tune.submit(order.trial, order.work)
    return True


class _Nodes:
    """What a joined Ray has, which may gain and lose nodes.

    Args:
        launch: hears of changes.
        cluster: what Ray had when it was joined.
    """

    def __init__(self, launch: Connection, cluster: Cluster) -> None:
        self._launch = launch
        self._known = cluster
        self._looked = time.monotonic()

    def follow(self) -> None:
        """Tell the launch what the cluster has now, if that has changed."""
        if self._known.is_own or time.monotonic() < self._looked + _NODES_SECONDS:
            return
        self._looked = time.monotonic()
        now = offer(self._known.scratch, is_own=False)
        if now != self._known:
            self._known = now
            self._launch.send(now)


@contextmanager
def _watched_start(launch: Connection, seen: dict[int, str]) -> Iterator[None]:
    """Leave when a process of an own Ray dies while the block starts it.

    `ray.init` itself would wait for the dead one for a minute.

    Args:
        launch: to be told.
        seen: gets the processes, names by process id.
    """
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_START_TICK_SECONDS):
            _leave_if_dead(launch, seen)
            seen.update(ray_processes())

    thread = threading.Thread(target=look, name="watch the start of Ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _leave_if_dead(launch: Connection, processes: dict[int, str]) -> None:
    """Leave if any of these processes, names by process id, has ended."""
    gone = [name for pid, name in processes.items() if not lives(pid)]
    if gone:
        _leave(launch, Broken(f"its {gone[0]} is gone"))


def _leave(launch: Connection, last: Broken) -> NoReturn:
    """Tell the launch why, and end: without clean-up, which would wait for what is dead."""
    try:
        launch.send(last)
    finally:
        os._exit(1)
