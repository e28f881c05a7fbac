"""A lock file with one owner: a lock of the kernel (flock), and a text that names the owner.

The kernel releases the lock with the process, however it dies. Some file systems have no such locks
across hosts. There a heartbeat takes their place: the owner keeps renewing the modification time of
the file, and while that is fresh a file that names another host counts as locked. Where that time
lies ahead of this machine's clock only its change shows that the owner lives.
"""

import fcntl
import hashlib
import json
import os
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

HEARTBEAT_SECONDS = 10.0
FRESH_SECONDS = 60.0  # another host's lock without a heartbeat for so long is abandoned
FRESH_VARIABLE = "CLAIM_FRESH_SECONDS"  # of the environment; the same on all hosts
_POLL_SECONDS = 0.1
_GLANCE_SECONDS = 0.3  # `lock_owner` of another process takes the lock for an instant, to look
_LONGEST = 65536  # bytes of a lock file's text


@dataclass(frozen=True)
class LockOwner:
    """The process that owns a lock.

    Attributes:
        what: attempt of a run, or launch of a grid.
        since: UTC, ISO 8601.
    """

    host: str
    pid: int
    what: str
    since: str

    @classmethod
    def here(cls, what: str) -> "LockOwner":
        """This process, from now on."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(host=socket.gethostname(), pid=os.getpid(), what=what, since=now)

    def __str__(self) -> str:
        return f"{self.what}, process {self.pid} on {self.host}, since {self.since}"


class Busy(RuntimeError):
    """Another process owns the lock.

    Attributes:
        owner: says which; None where that is not known.
    """

    def __init__(
        self, folder: object, owner: LockOwner | None, *, lock_file: Path | None = None
    ) -> None:
        self.owner = owner
        who = owner or "another process"
        super().__init__(f"{folder} is held by {who}. {_advice(owner, lock_file)}")


def _advice(owner: LockOwner | None, lock_file: Path | None) -> str:
    """What to do about a lock; nobody is asked to stop a process that has ended."""
    if _is_elsewhere(owner):
        return (
            "Wait until it ends, or stop it there with Ctrl-C; if it has died, the lock is free "
            f"{fresh_seconds():g} s after its last sign of life."
        )
    # The text of a lock file names the process that took it. A child may hold the lock longer.
    if owner and owner.pid and lock_file and not Path(f"/proc/{owner.pid}").exists():
        return (
            "There is no such process here any more, but one that it started still holds the "
            f"lock: `fuser {shlex.quote(str(lock_file))}` names it."
        )
    return "Wait until it ends, or stop it there with Ctrl-C."


@dataclass
class FileLock:
    """A lock file that this process owns."""

    path: Path
    descriptor: int

    def describe(self, what: str) -> None:
        """Write into the file what it is locked for, and by which process."""
        self.write(json.dumps(asdict(LockOwner.here(what))))

    def write(self, text: str) -> None:
        """Replace the file's text."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode(), 0)


@contextmanager
def file_lock(path: Path, what: str, *, wait_seconds: float = 0.0) -> Iterator[FileLock]:
    """Own a lock file until the block ends or the process dies.

    Args:
        path: the lock file; made if missing, together with its folder.
        what: it is locked for, a few words that others are shown.
        wait_seconds: how long to wait for an owner that may just be dying.

    Raises:
        Busy: another process still owns it after that time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor, path, wait_seconds)
        lock = FileLock(path, descriptor)
        lock.describe(what)
        try:
            with _heartbeat(path):
                yield lock
        finally:
            # Empty text: another host must not take the ended lock for a live one.
            lock.write("")
    finally:
        os.close(descriptor)


def lock_owner(path: Path | str) -> LockOwner | None:
    """The owner of a lock file now; None without one. Does not change the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        owner = _written_owner(descriptor)
        if _is_elsewhere(owner) and _is_fresh(Path(path)):
            return owner
        # A shared lock: it excludes the exclusive lock of an owner, but not other lookers.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        # An owner that has just taken the lock has not yet written its name.
        return _written_owner(descriptor) or LockOwner(
            "an unknown host", 0, "a starting process", "just now"
        )
    finally:
        os.close(descriptor)


def fresh_seconds() -> float:
    """How long a lock of another host counts without a heartbeat."""
    return float(os.environ.get(FRESH_VARIABLE, FRESH_SECONDS))


def _lock(descriptor: int, path: Path, wait_seconds: float) -> None:
    """Take the exclusive lock, or raise `Busy` after so many seconds."""
    give_up = time.monotonic() + max(wait_seconds, _GLANCE_SECONDS)
    while True:
        owner = _written_owner(descriptor)
        if not (_is_elsewhere(owner) and _is_fresh(path)):
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        if time.monotonic() >= give_up:
            raise Busy(path.parent, owner, lock_file=path)
        time.sleep(_POLL_SECONDS)


def _heartbeat(path: Path) -> AbstractContextManager[None]:
    """Renew the modification time of the lock file from a thread."""

    def touch(stop: threading.Event) -> None:
        # Several heartbeats may fail or be late before the lock counts as abandoned.
        while not stop.wait(min(HEARTBEAT_SECONDS, fresh_seconds() / 6)):
            with suppress(OSError):
                os.utime(path)

    return background_thread(touch, f"heartbeat {path}")


def _is_elsewhere(owner: LockOwner | None) -> bool:
    return owner is not None and owner.host != socket.gethostname()


def _is_fresh(path: Path) -> bool:
    try:
        renewed = path.stat().st_mtime
    except OSError:
        return False
    age = time.time() - renewed
    if age < -fresh_seconds():
        return _is_changing(path, renewed)
    return age < fresh_seconds()


def _is_changing(path: Path, renewed: float) -> bool:
    """Whether a time that lies ahead of this machine's clock is news, or was until lately.

    When this machine first saw it is kept in a small file, since a command looks only once.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    name = hashlib.sha256(f"{socket.gethostname()} {path.resolve()}".encode()).hexdigest()[:32]
    note = cache / "ipixmatch" / "locks_ahead" / name
    try:
        if note.exists() and note.read_text() == repr(renewed):
            return time.time() - note.stat().st_mtime < fresh_seconds()
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(repr(renewed))
    except OSError:
        pass  # without a note it counts as fresh, which is the safe side
    return True


def _written_owner(descriptor: int) -> LockOwner | None:
    """The owner that an open lock file names; its process may have died."""
    try:
        text = os.pread(descriptor, _LONGEST, 0)
        return LockOwner(**json.loads(text)) if text else None
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def background_thread(run: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Run a function in a thread until the block ends.

    Args:
        run: called in a thread with the event that tells it to return.
        name: of the thread, as stack dumps show it.
    """
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,), daemon=True, name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
