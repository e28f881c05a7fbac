"""The lock of a run or a grid in a bucket: one small object, replaced only on condition.

It holds the number of the newest attempt and, while the lock has an owner, who that is. The owner
replaces it at every heartbeat. The server accepts a replacement only of the version that the writer
has read, so one of several writers wins, and an owner that was thought dead learns at its next
heartbeat that it has lost the lock. Ages are measured by the server's clock, so the clocks of the
hosts need not agree.
"""

import hashlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasets.errors import Unreachable
from datasets.storage.base import Held, Storage
from datasets.storage.open import open_storage
from orchestrator.storage.file_lock import (
    HEARTBEAT_SECONDS,
    Busy,
    LockOwner,
    background_thread,
    fresh_seconds,
)
from orchestrator.storage.s3_storage import SHORT_PATIENCE, storage_of

IDLE_BYTES = 40  # a lock without owner is shorter, one with an owner is longer
_POLL_SECONDS = 0.5
_WRITTEN = {"owner": "holder", "heartbeats": "beat"}  # names in the objects of existing roots
_OURS: set[str] = set()  # tokens of the locks that this process owns


class LockLost(RuntimeError):
    """Another process took the lock while its owner sent no heartbeat; the owner must end."""


@dataclass(frozen=True)
class LockRecord:
    """What a lock's object says.

    Attributes:
        attempt: number of the newest attempt of a run; 0 without one.
        owner: the process that wrote the record; it may have died.
        machine: of the owner, see `machine`.
        started: when the owner's process started, in clock ticks since boot.
        token: drawn anew each time the lock is taken.
        heartbeats: replacements by this owner, so that no two texts are equal.
    """

    attempt: int = 0
    owner: LockOwner | None = None
    machine: str = ""
    started: str = ""
    token: str = ""
    heartbeats: int = 0

    def text(self) -> bytes:
        """The object's bytes."""
        if self.owner is None:
            return json.dumps({"attempt": self.attempt}).encode()
        fields = vars(self) | {"owner": vars(self.owner)}
        return json.dumps({_WRITTEN.get(name, name): fields[name] for name in fields}).encode()

    @classmethod
    def of(cls, held: Held | None) -> "LockRecord":
        """What an object says; nothing about one that is missing or of another kind."""
        with suppress(ValueError, TypeError, KeyError):
            fields: dict[str, Any] = json.loads(held.content) if held else {}
            owner = fields.pop(_WRITTEN["owner"], None)
            heartbeats = fields.pop(_WRITTEN["heartbeats"], 0)
            return cls(**fields, owner=LockOwner(**owner) if owner else None, heartbeats=heartbeats)
        return cls()

    def is_alive(self, age_seconds: float) -> bool:
        """Whether its owner may still run."""
        if self.owner is None or age_seconds >= fresh_seconds():
            return False
        if self.machine != machine():
            return True  # of a process elsewhere only the heartbeat can be seen
        if self.started != _start_of(self.owner.pid):
            return False  # it has ended, and another process may have its number now
        return self.started != _start_of("self") or self.token in _OURS


@dataclass
class S3Lock:
    """A lock in a bucket that this process owns.

    Attributes:
        is_lost: another process has taken it.
    """

    storage: Storage
    name: str
    record: LockRecord
    tag: str
    is_lost: bool = False
    _change_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def attempt(self) -> int:
        """Number of the newest attempt."""
        return self.record.attempt

    def describe(self, what: str, *, attempt: int | None = None) -> None:
        """Write what it is locked for, and which attempt is the newest from now on.

        Raises:
            LockLost: another process has taken it; nothing was changed.
            Unreachable: no answer; whether it was changed is unknown.
        """
        number = self.attempt if attempt is None else attempt
        self._change(owner=LockOwner.here(what), attempt=number)

    def heartbeat(self) -> None:
        """Replace the record, so that others see a live owner.

        Raises:
            LockLost, Unreachable: see `describe`.
        """
        self._change()

    def release(self) -> None:
        """Give the lock up, unless another process has taken it."""
        with suppress(LockLost):
            self._change(owner=None)

    def _change(self, **changes: Any) -> None:
        with self._change_lock:
            record = replace(self.record, heartbeats=self.record.heartbeats + 1, **changes)
            if not self._put(record):
                self.is_lost = True
                raise LockLost(_lost(self.storage, self.name))
            self.record = record

    def _put(self, record: LockRecord) -> bool:
        """Replace the record that this owner put last; False when another process has put one."""
        while not self.is_lost:
            if self.storage.replace(self.name, record.text(), self.tag):
                if record.owner is not None:
                    self.tag = _tag_of(self.storage, self.name, record)
                return True
            # An earlier replacement may have succeeded while its answer was lost. Then the record
            # is still of this owner, as its token shows, and only the tag is another.
            held = _held(self.storage, self.name)
            if held is None or LockRecord.of(held).token != self.record.token:
                return False
            self.tag = held.tag
        return False


@contextmanager
def s3_lock(
    url: str,
    name: str,
    what: str,
    *,
    wait_seconds: float = 0.0,
    on_heartbeat: Callable[[], None] = lambda: None,
) -> Iterator[S3Lock]:
    """Own a lock until the block ends; if the process dies, others see its heartbeat stop.

    Args:
        url: of the root.
        name: of the lock's object.
        what: it is locked for, a few words that others are shown.
        wait_seconds: how long to wait for an owner that may just be dying.
        on_heartbeat: called at every heartbeat, from its thread.

    Raises:
        Busy: another process still owns it after that time.
        Unreachable: the server does not answer.
    """
    lock = _take(storage_of(url), name, what, wait_seconds)
    lock.storage = _impatient(url)
    _OURS.add(lock.record.token)
    try:
        with _heartbeat(lock, on_heartbeat):
            yield lock
    finally:
        _OURS.discard(lock.record.token)
        with suppress(Unreachable):  # without heartbeats the lock soon counts as free
            lock.release()


def _impatient(url: str) -> Storage:
    """The storage for heartbeats, with little patience, since the next one follows soon."""
    short = max(2.0, min(SHORT_PATIENCE, fresh_seconds() / 4))
    return open_storage(url, patience=short, stall=short)


def read_lock(storage: Storage, name: str) -> tuple[LockRecord, LockOwner | None]:
    """What a lock says, and who owns it now; changes nothing."""
    held = _held(storage, name)
    record = LockRecord.of(held)
    return record, record.owner if held and record.is_alive(held.age_seconds) else None


def _take(storage: Storage, name: str, what: str, wait_seconds: float) -> S3Lock:
    give_up = time.monotonic() + wait_seconds
    token = uuid.uuid4().hex
    _OURS.add(token)  # before the object is written: other threads may read it at once
    while True:
        held = _held(storage, name)
        old = LockRecord.of(held)
        if held is None or not old.is_alive(held.age_seconds):
            here = LockOwner.here(what)
            record = LockRecord(old.attempt, here, machine(), _start_of("self"), token)
            if held:
                won = storage.replace(name, record.text(), held.tag)
            else:
                won = storage.create(name, record.text())
            tag = _tag_of(storage, name, record) if won else ""
            if tag:
                return S3Lock(storage, name, record, tag)
        elif time.monotonic() >= give_up:
            raise Busy(f"{storage.url}/{name.rpartition('/')[0]}", old.owner)
        time.sleep(min(_POLL_SECONDS, max(0.05, give_up - time.monotonic())))


def _heartbeat(lock: S3Lock, on_heartbeat: Callable[[], None]) -> AbstractContextManager[None]:
    """Replace the lock's object again and again, from a thread."""

    def replace_often(stop: threading.Event) -> None:
        # Several heartbeats may fail before the lock counts as abandoned.
        while not stop.wait(min(HEARTBEAT_SECONDS, fresh_seconds() / 6)):
            try:
                lock.heartbeat()
                on_heartbeat()
            except OSError:
                continue  # whether the lock was lost, the next answer of the server tells
            except LockLost as lost:
                logging.getLogger("datasets").warning("%s", lost)
                return

    return background_thread(replace_often, f"heartbeat {lock.name}")


def _held(storage: Storage, name: str) -> Held | None:
    try:
        return storage.hold(name)
    except FileNotFoundError as error:
        if error.errno is None:  # the bucket, not the object
            raise
        return None


def _tag_of(storage: Storage, name: str, record: LockRecord) -> str:
    """Tag of the record that was just put; empty when another has replaced it already."""
    held = _held(storage, name)
    return held.tag if held and held.content == record.text() else ""


def _lost(storage: Storage, name: str) -> str:
    """The message of `LockLost`: which process has the lock now."""
    owner: object = "somebody else"
    with suppress(OSError):
        owner = read_lock(storage, name)[1] or owner
    folder = f"{storage.url}/{name.rpartition('/')[0]}"
    return f"{folder} was taken over by {owner} while this process was silent; it ends here."


def _start_of(pid: int | str) -> str:
    """When a process of this machine started; empty when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # Fields 3 (state; Z is a zombie) and 22 (start time) of proc_pid_stat(5).
    return "" if fields[0] == "Z" else fields[19]


@lru_cache(maxsize=1)
def machine() -> str:
    """A name for this boot of this machine and for the container (namespace of process numbers)."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    identity = [os.uname().nodename, str(Path("/proc/self/ns/pid").readlink())]
    identity += [boot.read_text().strip()] if boot.exists() else []
    return hashlib.sha256(" ".join(identity).encode()).hexdigest()[:16]
