"""A run in the hands of one attempt: how it is taken, numbered, kept safe and given back."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.failures import StaleAttempt
from orchestrator.storage.lock import FileLock, file_lock
from orchestrator.storage.mirror import Overtaken
from orchestrator.storage.paths import GridPaths, RootPaths, RunPaths
from orchestrator.storage.run_sync import RunUploader, empty, fetch, mark, newest_pushed
from orchestrator.storage.s3_lock import ClaimLost, S3Lock, s3_lock
from orchestrator.storage.s3_root import SHORT_PATIENCE, exists, stop_name, storage_of
from orchestrator.trial import Outcome, Trial


class RunOwner(Protocol):
    """The owner of a run; each attempt has its own."""

    @property
    def place(self) -> RunPaths:
        """Where it works."""

    @property
    def newest(self) -> int:
        """Number of the newest attempt."""

    def begin(self, published: int) -> int:
        """Bring the run here and take the next number, above the published ones."""

    def start(self) -> None:
        """Shut every older attempt out, once the folder says that this one began."""

    def training(self) -> AbstractContextManager[None]:
        """Keep the run safe while it trains."""

    def must_end(self) -> bool:
        """Whether the run is not ours any more, or a launch elsewhere wants it to stop."""

    def save(self) -> None:
        """Make sure that all is safe, and that this attempt is the newest.

        Raises:
            StaleAttempt: it is not; nothing may be published.
            Unreachable: the store failed for too long; another attempt may go on from here.
        """

    def end(self, outcome: Outcome) -> None:
        """The last thing that an attempt does, after its outcome is written down."""

    def release(self) -> None:
        """Spare others the wait for a heartbeat to grow old: this process is about to end."""


@contextmanager
def own_run(trial: Trial, what: str, *, wait_seconds: float) -> Iterator[RunOwner]:
    """Own a trial's run until the block ends.

    Raises:
        Busy: somebody else still does after that time.
        Unreachable: the store of its root does not answer.
    """
    places = RootPaths.at(trial.root)
    place = places.run(trial.key)
    with file_lock(place.lock, what, wait_seconds=wait_seconds) as hold:
        if not places.url:
            yield FolderOwner(place, hold)
            return
        watch = _StopWatch(places.url, stop_name(trial.stop_file) if trial.stop_file else "")
        claim = f"{place.name}/lock"
        with s3_lock(
            places.url, claim, what, wait_seconds=wait_seconds, on_beat=watch.look
        ) as store_hold:
            yield StoreOwner(place, store_hold, watch)


@contextmanager
def held_grid(place: GridPaths, what: str) -> Iterator[Callable[[], bool]]:
    """Hold a grid until the block ends; gives the question whether it was lost meanwhile.

    Raises:
        Busy: another launch of the grid runs.
        Unreachable: the store of its root does not answer.
    """
    with file_lock(place.lock, what):
        if not place.url:
            yield lambda: False
            return
        with s3_lock(place.url, f"{place.name}/lock", what) as hold:
            yield lambda: hold.is_lost


@dataclass
class FolderOwner:
    """The owner of a run folder, by a lock of the kernel."""

    place: RunPaths
    hold: FileLock
    number: int = 0

    @property
    def newest(self) -> int:
        """See `RunOwner`."""
        return self.place.newest_attempt()

    def begin(self, published: int) -> int:
        """See `RunOwner`."""
        self.number = max(self.newest, published) + 1
        self.hold.describe(f"attempt {self.number}")
        return self.number

    def start(self) -> None:
        """See `RunOwner`."""

    def training(self) -> AbstractContextManager[None]:
        """See `RunOwner`."""
        return nullcontext()

    def must_end(self) -> bool:
        """See `RunOwner`."""
        return False

    def save(self) -> None:
        """See `RunOwner`."""
        if self.newest != self.number:
            raise _stale(self.place, self.number, self.newest)

    def end(self, outcome: Outcome) -> None:
        """See `RunOwner`."""

    def release(self) -> None:
        """See `RunOwner`."""
        self.hold.write("")


@dataclass
class _StopWatch:
    """Looks for the stop object of the launch at every heartbeat."""

    url: str
    name: str
    is_asked: bool = False

    def look(self) -> None:
        if self.name and exists(storage_of(self.url, patience=SHORT_PATIENCE), self.name):
            self.is_asked = True


@dataclass
class StoreOwner:
    """The owner of a run in an object store, who works in a scratch folder."""

    place: RunPaths
    hold: S3Lock
    watch: _StopWatch
    number: int = 0
    _mirror: RunUploader | None = field(default=None)

    @property
    def newest(self) -> int:
        """See `RunOwner`."""
        return self.hold.attempt

    def begin(self, published: int) -> int:
        """See `RunOwner`."""
        fetch(self.place, self.newest)
        self.number = max(self.newest, newest_pushed(self.place), published) + 1
        with _as_stale():
            self.hold.describe(f"attempt {self.number}", attempt=self.number)
        mark(self.place, self.number)
        self._mirror = RunUploader(self.place, self.number)
        return self.number

    def start(self) -> None:
        """See `RunOwner`."""
        assert self._mirror is not None
        with _as_stale():
            self._mirror.push()
        self._mirror.sweep()

    def training(self) -> AbstractContextManager[None]:
        """See `RunOwner`."""
        assert self._mirror is not None
        return self._mirror.pushing()

    def must_end(self) -> bool:
        """See `RunOwner`."""
        is_overtaken = self._mirror is not None and self._mirror.is_overtaken
        return self.hold.is_lost or is_overtaken or self.watch.is_asked

    def save(self) -> None:
        """See `RunOwner`."""
        assert self._mirror is not None
        with _as_stale():
            self._mirror.push()
            self.hold.beat()

    def end(self, outcome: Outcome) -> None:
        """See `RunOwner`."""
        assert self._mirror is not None
        with suppress(OSError, Overtaken):
            self._mirror.push()
            if outcome.status == "done":
                empty(self.place)

    def release(self) -> None:
        """See `RunOwner`."""
        with suppress(OSError):
            self.hold.release()


@contextmanager
def _as_stale() -> Iterator[None]:
    """The two ways to learn that another attempt has begun, as one."""
    try:
        yield
    except (Overtaken, ClaimLost) as error:
        raise StaleAttempt(str(error)) from error


def _stale(place: RunPaths, number: int, newest: int) -> StaleAttempt:
    """Refuse to publish when a newer attempt began: its row counts."""
    return StaleAttempt(
        f"Attempt {number} of {place.folder.name} is stale: attempt {newest} has begun. This one "
        "is dropped; nothing needs to be done."
    )


def stop_condition(owner: RunOwner, asked: Callable[[], bool]) -> Callable[[], bool]:
    """The question of every step: shall the run end?"""
    return lambda: asked() or owner.must_end()
