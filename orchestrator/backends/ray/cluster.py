"""The Ray that a launch uses: its own on this machine, or one it joins."""

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.backends.base import worker_environment
from orchestrator.options import LaunchOptions
from orchestrator.storage.file_lock import file_lock, lock_owner

_PREFIX = "ipix-"
_CARD = "accelerator_type:"  # of a resource that says what kind of GPU a node has
_PROBE_SECONDS = 5.0
_LONGEST_TEMP = 24  # characters; a path of a unix socket ends at 107, Ray's part takes 80
_SESSION = 3  # place of the session among the fields that `_processes` gives
_ROOM_BYTES = 20 * 2**20  # for Ray's sockets and the first of its logs
_OBJECT_STORE_BYTES = 100 * 2**20  # only small messages pass through Ray

# Names as /proc has them, cut after 15 characters, and what to call them.
_VITAL = {
    "raylet": "raylet",
    "gcs_server": "GCS",
    "ray::DashboardA": "dashboard agent",
    "ray::RuntimeEnv": "runtime environment agent",
}

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


def driver_environment(code: str) -> dict[str, str]:
    """What the process that starts or joins Ray must find in its environment.

    Args:
        code: folder of the launch's copy of the code; empty for the checkout itself.
    """
    # The workers of an own Ray inherit it; `_join` hands it to those of another one.
    return {**os.environ, **worker_environment(code), **_QUIET}


@contextmanager
def scratch_folder(options: LaunchOptions, shared: Path) -> Iterator[Path]:
    """A folder for the files of Ray and of its trials, removed when the block ends.

    Args:
        options: `ray_address` decides; every node of a joined cluster must see the folder.
        shared: where it lies when a cluster is joined.

    Raises:
        ClusterUnreachable: its disk is full.
    """
    own = not options.ray_address
    if own:
        _remove_leftovers()
    parent = _short_temp() if own else _existing(shared)
    check_room(parent, shutil.disk_usage(parent).free)
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)).resolve()
    try:
        with file_lock(scratch / "owner", "this launch"):
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_room(folder: Path, free_bytes: int) -> None:
    """Refuse a folder for temporary files in which Ray could not start.

    Raises:
        ClusterUnreachable: names the folder and what to do.
    """
    if free_bytes < _ROOM_BYTES:
        raise ClusterUnreachable(
            f"The folder for temporary files, {folder}, has {free_bytes / 2**20:.0f} MiB left and "
            f"Ray needs {_ROOM_BYTES / 2**20:.0f}. Make room there, or choose another one with "
            "TMPDIR=DIR; backend=inline runs without Ray."
        )


def connect(options: LaunchOptions, scratch: Path, code: str) -> Cluster:
    """Start an own Ray or join one.

    Args:
        options: `ray_address` decides.
        scratch: from `scratch_folder`.
        code: folder of the launch's copy of the code; empty for the checkout itself.

    Raises:
        ClusterUnreachable: no Ray answers, or the own one does not start; names the address.
    """
    return _join(options, scratch, code) if options.ray_address else _start(options, scratch)


def end_session(leader: int) -> None:
    """Kill every process of a session but this one, also those whose parents are gone.

    All processes of an own Ray are in the session of the process that started it. When one of them
    dies, the others live on for seconds or a minute, and would hold memory, cards and locks.
    """
    for pid, _, fields in _processes():
        if int(fields[_SESSION]) == leader and pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def ray_processes() -> dict[int, str]:
    """Processes of the own Ray in this session without any of which it ends; names by process id.

    The raylet ends when one of its two agents does.
    """
    here = os.getsid(0)
    return {
        pid: _VITAL[name]
        for pid, name, fields in _processes()
        if name in _VITAL and int(fields[_SESSION]) == here
    }


def lives(pid: int) -> bool:
    """Whether a process runs; one that is only not yet reaped does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def _processes() -> Iterator[tuple[int, str, list[str]]]:
    """Process id, name, and the fields after the name of /proc/PID/stat, of every process."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name stands in parentheses and may itself hold spaces and parentheses.
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")[0:3]
        except OSError:
            continue
        yield int(path.parent.name), name, rest.split()


def _start(options: LaunchOptions, scratch: Path) -> Cluster:
    """Start a private Ray that only this machine can reach."""
    # Without these Ray listens on every interface, and writes its token under the home folder.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # a process start for nothing here
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # As any other process of this user's; Ray's default of 15 starves beside other work.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Ray starts an idle process per CPU for tasks to come; Tune's and Train's actors use none.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    os.environ.pop("RAY_ADDRESS", None)
    import ray

    _silence()
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
    return offer(scratch, is_own=True)


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
    return offer(scratch, is_own=False)


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


def offer(scratch: Path, *, is_own: bool) -> Cluster:
    """What the connected Ray has now."""
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
