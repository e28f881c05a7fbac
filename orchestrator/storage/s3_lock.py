"""Who owns a run or a grid in an object store: one small object, replaced only on condition.

It holds the number of the newest attempt and, while somebody owns the thing, who that is. Its
owner replaces it at every heartbeat; the store decides each replacement, so of many claimants one
wins, and an owner that was thought dead learns at its next heartbeat that it is none any more.
Ages are read off the store's own clock; hosts need not agree about the time.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.errors import Unreachable
from datasets.storage.base import Held, Storage
from datasets.storage.open import open_storage
from orchestrator.storage.lock import (
    HEARTBEAT_SECONDS,
    Busy,
    LockOwner,
    background_thread,
    fresh_seconds,
)
from orchestrator.storage.paths import machine
from orchestrator.storage.s3_root import SHORT_PATIENCE, storage_of

IDLE_BYTES = 40  # a claim of nobody is shorter, one that somebody holds is longer
_POLL_SECONDS = 0.5
_OURS: set[str] = set()  # claims that this very process holds


class ClaimLost(RuntimeError):
    """Somebody else took the claim while its owner was silent; the owner must end."""


@dataclass(frozen=True)
class LockRecord:
    """What a claim's object says.

    Attributes:
        attempt: number of the newest attempt of a run; 0 without one.
        holder: who says to own it.
        machine: of the holder, with the container whose process numbers count.
        started: when the holder's process started, in the machine's own unit.
        token: of this very claiming.
    """

    attempt: int = 0
    holder: LockOwner | None = None
    machine: str = ""
    started: str = ""
    token: str = ""
    beat: int = 0

    def text(self) -> bytes:
        """The object's bytes."""
        if self.holder is None:
            return json.dumps({"attempt": self.attempt}).encode()
        return json.dumps({**vars(self), "holder": vars(self.holder)}).encode()

    @classmethod
    def of(cls, held: Held | None) -> "LockRecord":
        """What an object says; nothing about one that is missing or of another kind."""
        with suppress(ValueError, TypeError, KeyError):
            plain: dict[str, Any] = json.loads(held.content) if held else {}
            holder = plain.pop("holder", None)
            return cls(**plain, holder=LockOwner(**holder) if holder else None)
        return cls()

    def is_alive(self, age_seconds: float) -> bool:
        """Whether its holder may still be at work."""
        if self.holder is None or age_seconds >= fresh_seconds():
            return False
        if self.machine != machine():
            return True
        if self.started != _start_of(self.holder.pid):
            return False  # that process is gone, whatever has its number now
        return self.started != _start_of("self") or self.token in _OURS


@dataclass
class S3Lock:
    """A claim that is held by this process.

    Attributes:
        is_lost: somebody else has it by now.
    """

    storage: Storage
    name: str
    claim: LockRecord
    tag: str
    is_lost: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def attempt(self) -> int:
        """Number of the newest attempt."""
        return self.claim.attempt

    def describe(self, what: str, *, attempt: int | None = None) -> None:
        """Say for whom it is held, and which attempt is the newest from now on.

        Raises:
            ClaimLost: it is not ours any more; nothing was changed.
            Unreachable: nobody knows.
        """
        number = self.attempt if attempt is None else attempt
        self._change(holder=LockOwner.here(what), attempt=number)

    def beat(self) -> None:
        """Show that we live.

        Raises:
            ClaimLost, Unreachable: see `describe`.
        """
        self._change()

    def release(self) -> None:
        """Let it go; what we have lost is not ours to touch."""
        with suppress(ClaimLost):
            self._change(holder=None)

    def _change(self, **changes: Any) -> None:
        with self._lock:
            claim = LockRecord(**{**vars(self.claim), **changes, "beat": self.claim.beat + 1})
            if not self._put(claim):
                self.is_lost = True
                raise ClaimLost(_lost(self.storage, self.name))
            self.claim = claim

    def _put(self, claim: LockRecord) -> bool:
        """Replace what we put last; False when somebody else has put something since."""
        while not self.is_lost:
            if self.storage.replace(self.name, claim.text(), self.tag):
                if claim.holder is not None:
                    self.tag = _tag_of(self.storage, self.name, claim)
                return True
            # An answer that never came makes a heartbeat of our own look foreign.
            held = _held(self.storage, self.name)
            if held is None or LockRecord.of(held).token != self.claim.token:
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
    on_beat: Callable[[], None] = lambda: None,
) -> Iterator[S3Lock]:
    """Hold a claim until the block ends; if the process dies, others see its heartbeat stop.

    Args:
        url: of the root.
        name: of the claim's object.
        what: for whom, in words; others read it.
        wait_seconds: how long to wait for a holder that may just be dying.
        on_beat: called at every heartbeat, from its thread.

    Raises:
        Busy: somebody else still holds it after that time.
        Unreachable: the store does not answer.
    """
    hold = _take(storage_of(url), name, what, wait_seconds)
    hold.storage = _impatient(url)
    _OURS.add(hold.claim.token)
    try:
        with _heartbeat(hold, on_beat):
            yield hold
    finally:
        _OURS.discard(hold.claim.token)
        with suppress(Unreachable):  # the heartbeat is over: it will be free soon
            hold.release()


def _impatient(url: str) -> Storage:
    """For heartbeats: the next one follows soon."""
    short = max(2.0, min(SHORT_PATIENCE, fresh_seconds() / 4))
    return open_storage(url, patience=short, stall=short)


def read_lock(storage: Storage, name: str) -> tuple[LockRecord, LockOwner | None]:
    """What a claim says, and who holds it now; changes nothing."""
    held = _held(storage, name)
    claim = LockRecord.of(held)
    return claim, claim.holder if held and claim.is_alive(held.age_seconds) else None


def _take(storage: Storage, name: str, what: str, wait_seconds: float) -> S3Lock:
    give_up = time.monotonic() + wait_seconds
    token = uuid.uuid4().hex
    _OURS.add(token)  # before it is put: other threads of this process may look at once
    while True:
        held = _held(storage, name)
        found = LockRecord.of(held)
        if held is None or not found.is_alive(held.age_seconds):
            claim = LockRecord(
                found.attempt, LockOwner.here(what), machine(), _start_of("self"), token
            )
            put = storage.replace(name, claim.text(), held.tag) if held else None
            won = storage.create(name, claim.text()) if put is None else put
            tag = _tag_of(storage, name, claim) if won else ""
            if tag:
                return S3Lock(storage, name, claim, tag)
        elif time.monotonic() >= give_up:
            raise Busy(f"{storage.url}/{name.rpartition('/')[0]}", found.holder)
        time.sleep(min(_POLL_SECONDS, max(0.05, give_up - time.monotonic())))


def _heartbeat(hold: S3Lock, on_beat: Callable[[], None]) -> AbstractContextManager[None]:
    """Replace the claim again and again, from a thread."""

    def beat(stop: threading.Event) -> None:
        while not stop.wait(min(HEARTBEAT_SECONDS, fresh_seconds() / 6)):
            try:
                hold.beat()
                on_beat()
            except OSError:
                continue  # lost or not: the next answer of the store tells
            except ClaimLost as lost:
                logging.getLogger("datasets").warning("%s", lost)
                return

    return background_thread(beat, f"heartbeat {hold.name}")


def _held(storage: Storage, name: str) -> Held | None:
    try:
        return storage.hold(name)
    except FileNotFoundError as error:
        if error.errno is None:  # the bucket, not the object
            raise
        return None


def _tag_of(storage: Storage, name: str, claim: LockRecord) -> str:
    """Tag of what we have just put; empty when another one stands there already."""
    held = _held(storage, name)
    return held.tag if held and held.content == claim.text() else ""


def _lost(storage: Storage, name: str) -> str:
    """In words, who has our claim now."""
    holder: object = "somebody else"
    with suppress(OSError):
        holder = read_lock(storage, name)[1] or holder
    place = f"{storage.url}/{name.rpartition('/')[0]}"
    return f"{place} was taken over by {holder} while this process was silent; it ends here."


def _start_of(pid: int | str) -> str:
    """When a process of this machine started; empty when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
