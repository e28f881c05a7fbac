"""The Ray that a launch uses: its own on this machine, or one it joins."""

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.backends.base import worker_environment
from orchestrator.options import LaunchOptions
from orchestrator.storage.file_lock import file_lock, lock_owner

_LOOK_SECONDS = 1.0  # between two looks at the raylet
_PREFIX = "ipix-"
_CARD = "accelerator_type:"  # of a resource that says what kind of GPU a node has
_PROBE_SECONDS = 5.0
_LONGEST_TEMP = 24  # characters; a path of a unix socket ends at 107, Ray's part takes 80
_OBJECT_STORE_BYTES = 100 * 2**20  # only small messages pass through Ray

# For the driver and everything it starts; must stand before ray is imported.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # our files are the truth, not Tune's
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in a worker
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


class ClusterUnreachable(RuntimeError):
    """No Ray answers at the given address, or the own one does not start."""


@dataclass(frozen=True)
class Cluster:
    """What the connected Ray offers.

    Attributes:
        scratch: a folder that every node sees, removed after the launch.
        cards: kinds of its GPUs, by the names that Ray gives them.
    """

    cpus: float
    gpus: float
    scratch: Path
    is_own: bool
    cards: tuple[str, ...] = ()


@contextmanager
def connected(options: LaunchOptions, shared: Path, code: str = "") -> Iterator[Cluster]:
    """Start or join Ray, and leave it at the end.

    Args:
        options: `ray_address` decides.
        shared: folder for scratch files when a cluster of several machines is joined.
        code: folder of the launch's copy of the code; empty for the checkout itself.

    Raises:
        ClusterUnreachable: no Ray answers, or the own one does not start; names the address.
    """
    os.environ.update(_QUIET)
    # The workers of an own Ray inherit it; `_join` hands it to those of another one.
    os.environ.update(worker_environment(code))
    own = not options.ray_address
    if own:
        _remove_leftovers()
    scratch = Path(
        tempfile.mkdtemp(prefix=_PREFIX, dir=_short_temp()) if own else _existing(shared)
    )
    with file_lock(scratch / "owner", "this launch"):
        try:
            # Ray puts the working folder of this moment ahead of all else where workers import.
            with chdir(code or "."):
                cluster = _start(options, scratch) if own else _join(options, scratch, code)
            yield cluster
        finally:
            import ray

            ray.shutdown()
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def raylet_watchdog(on_death: Callable[[], None]) -> Iterator[None]:
    """Watch the raylet (Ray's process on this machine) that we started, until the block ends.

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
    """Process id of the raylet among our children; None when the launch joined another Ray."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name stands in parentheses and may itself hold spaces and parentheses.
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


def _start(options: LaunchOptions, scratch: Path) -> Cluster:
    """Start a private Ray that only this machine can reach."""
    # Without these Ray listens on every interface, and writes its token under the home folder.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # a process start for nothing here
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.pop("RAY_ADDRESS", None)
    import ray

    _silence()
    # Ray's processes inherit this: a SIGTERM to the whole process group (timeout, scancel) must
    # reach this process only, which then lets every run checkpoint.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        ray.init(
            # For Ray a CPU is a number to count with; ranks may be more than the cores they share.
            num_cpus=max(available_cores(), options.ranks * (options.fixed_cpus or 1)),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(scratch),
        )
    except (RuntimeError, OSError, TimeoutError) as error:
        raise ClusterUnreachable(
            f"The local Ray did not start in {scratch} ({error}). Look for a full /tmp or "
            "/dev/shm; backend=inline runs without Ray."
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return _offer(scratch, is_own=True)


def _join(options: LaunchOptions, scratch: Path, code: str) -> Cluster:
    """Connect to a Ray that is running already."""
    listens = _probe(options.ray_address)
    import ray
    from ray.exceptions import AuthenticationError

    _silence()
    try:
        ray.init(
            address=options.ray_address,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            runtime_env={"env_vars": worker_environment(code)},
        )
    except AuthenticationError as error:  # there is no token here
        raise _refused(options.ray_address, error) from error
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        # Of a wrong token Ray says nothing but that it could not connect.
        kind = _refused if listens else _unreachable
        raise kind(options.ray_address, error) from error
    return _offer(scratch, is_own=False)


def _probe(address: str) -> bool:
    """Try the address before ray.init, which waits for minutes without an answer.

    Returns:
        Whether something listens; False where the address is not yet known.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address:
        return False
    try:
        socket.create_connection((host, int(port)), timeout=_PROBE_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _unreachable(address, error) from error
    return True


def _unreachable(address: str, error: Exception) -> ClusterUnreachable:
    return ClusterUnreachable(
        f"No Ray answers at ray_address={address} ({error}). Start one with `ray start --head`, "
        "correct the address, or leave ray_address away for an own one."
    )


def _refused(address: str, error: Exception) -> ClusterUnreachable:
    reason = str(error).partition(". ")[0]
    return ClusterUnreachable(
        f"The Ray at ray_address={address} does not let this launch join ({reason}). If it demands "
        "a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as where it was started; else give "
        "the port of `ray start --head`, and use its versions of Ray and Python."
    )


def _offer(scratch: Path, *, is_own: bool) -> Cluster:
    import ray

    has: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    kinds = (name.partition(_CARD) for name in sorted(has))
    cards = tuple(card for _, mark, card in kinds if mark)
    return Cluster(has.get("CPU", 0.0), has.get("GPU", 0.0), scratch, is_own, cards)


def _silence() -> None:
    """Keep Ray's own messages out of the launch's table; failures are reported as outcomes."""
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def _short_temp() -> Path:
    """The folder for temporary files, or /tmp where its path is too long for sockets below it."""
    chosen = Path(tempfile.gettempdir())
    return chosen if len(str(chosen)) <= _LONGEST_TEMP else Path("/tmp")


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _remove_leftovers() -> None:
    """Delete the scratch folders of launches that were killed: those that nothing holds locked."""
    for lock in _short_temp().glob(f"{_PREFIX}*/owner"):
        if lock_owner(lock) is None:
            shutil.rmtree(lock.parent, ignore_errors=True)
