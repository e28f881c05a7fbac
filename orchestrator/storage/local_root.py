"""A root that is a folder: locks are lock files, and runs and results are read in place."""

import glob
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from orchestrator.failures import StaleAttempt
from orchestrator.storage.file_lock import Busy, FileLock, LockOwner, file_lock, lock_owner
from orchestrator.storage.paths import LOCK, RunPaths, newest_attempt_in
from orchestrator.storage.result_folders import LocalResults
from orchestrator.storage.root import Probe, ResultFolder, ResultKind, Root, RunOwner, StopSignal
from orchestrator.storage.run_state import Progress, RunState, read_progress
from orchestrator.trial import Outcome
from trainer.checkpoint_manifest import fingerprint_of, newest

MOVED = "moved.txt"  # in the folder of an attempt that was set aside with its run
_GIB = 2**30
_ROOMY_GIB = 10  # free; below, the doctor warns


class LocalRoot(Root):
    """See `Root`.

    Args:
        folder: as the user wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.address = str(self.folder)
        self.scratch = ""
        self.runs = self.folder / "runs"
        self.printed = self.folder
        self.look_seconds = 0.5
        self.costs_requests = False

    def check(self) -> None:
        """See `Root`."""

    def probe(self) -> Probe:
        """See `Root`."""
        path = self.folder / f".doctor-{uuid.uuid4().hex[:8]}"
        try:
            with file_lock(path, "the doctor"):
                free = shutil.disk_usage(self.folder).free / _GIB
            path.unlink()
        except (OSError, Busy) as error:
            return Probe("folder", False, str(error), "Choose another root=DIR")
        advice = "" if free > _ROOMY_GIB else "A paper grid keeps some 100 GiB of checkpoints."
        return Probe("folder", True, f"{self.folder}: locks hold, {free:.0f} GiB free", advice)

    def states(self, keys: Collection[str], done: Collection[str] = ()) -> dict[str, RunState]:
        """See `Root`."""
        try:
            with os.scandir(self.runs) as entries:
                there = {entry.name for entry in entries}
        except FileNotFoundError:
            there = set()
        runs = str(self.runs)
        return {
            key: self._state(key, runs, is_done=key in done) if key in there else RunState()
            for key in keys
        }

    def progress(
        self, keys: Iterable[str], done: Collection[str] = ()
    ) -> dict[str, Progress | None]:
        """See `Root`."""
        return {key: read_progress(self.run(key)) for key in keys}

    def cached_progress(self, key: str) -> Progress | None:
        """See `Root`."""
        return read_progress(self.run(key))

    def lock_owner(self, key: str) -> LockOwner | None:
        """See `Root`."""
        return lock_owner(self.run(key).lock)

    def newest_attempt(self, key: str) -> int:
        """See `Root`."""
        return self.run(key).newest_attempt()

    def local_copy(self, key: str, *, also: Collection[str] = ()) -> RunPaths:
        """See `Root`."""
        return self.run(key)

    def folder_of_rank(self, key: str, attempt: int, rank: int) -> Path:
        """See `Root`."""
        return self.run(key).folder

    @contextmanager
    def own_run(
        self, key: str, what: str, *, wait_seconds: float, stop_file: str = ""
    ) -> Iterator[RunOwner]:
        """See `Root`."""
        paths = self.run(key)
        with file_lock(paths.lock, what, wait_seconds=wait_seconds) as lock:
            yield LocalRunOwner(paths, lock)

    @contextmanager
    def own_grid(self, name: str, what: str) -> Iterator[Callable[[], bool]]:
        """See `Root`."""
        with file_lock(self.grid(name).lock, what):
            yield lambda: False

    def archive_run(self, key: str, fingerprint: str | None, *, published_attempt: int) -> str:
        """See `Root`."""
        paths = self.run(key)
        with file_lock(paths.lock, "setting the run aside"):
            attempt = max(paths.newest_attempt(), published_attempt)
            old = fingerprint_of(paths.folder) or fingerprint or "unknown"
            target = _free(paths.folder.with_name(f"{key}~{old[:8]}"))
            paths.folder.rename(target)  # with the lock file, which stays locked: it is open
        leave_notice(paths, attempt, str(target))
        return str(target)

    def places(self, key: str) -> dict[int, str]:
        """See `Root`."""
        places: dict[int, str] = {}
        for folder in [self.runs / key, *self.runs.glob(f"{glob.escape(key)}~*")]:
            for attempt in RunPaths(folder).attempts.glob("[0-9]*"):
                if not (attempt / MOVED).exists():
                    places[int(attempt.name)] = f"runs/{folder.name}"
        return places

    def results(self, kind: ResultKind) -> ResultFolder:
        """See `Root`."""
        return LocalResults(self.folder / "results" / kind)

    def upload(self, paths: Sequence[Path]) -> list[str]:
        """See `Root`."""
        return []

    def stop_signal(self, stop_file: Path) -> StopSignal:
        """See `Root`."""
        return _StopFileSuffices()

    def log_hint(self, key: str, attempt: int) -> str:
        """See `Root`."""
        return str(self.run(key).log(attempt))

    def _state(self, key: str, runs: str, *, is_done: bool) -> RunState:
        # Text and no Path, which takes three times as long: a grid has thousands of cells.
        owner = lock_owner(f"{runs}/{key}/{LOCK}")
        if is_done:  # a row says all else, which saves opening thousands of folders
            return RunState(owner)
        folder = f"{runs}/{key}"
        return RunState(owner, newest_attempt_in(folder), newest(folder))


@dataclass
class LocalRunOwner:
    """The owner of a run directory, by its lock file."""

    paths: RunPaths
    lock: FileLock
    number: int = 0

    @property
    def newest(self) -> int:
        """See `RunOwner`."""
        return self.paths.newest_attempt()

    def begin(self, published: int) -> int:
        """See `RunOwner`."""
        self.number = max(self.newest, published) + 1
        self.lock.describe(f"attempt {self.number}")
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
        # Where a file system has no locks across hosts, a stopped process may wake up after another
        # host took its run over.
        if self.newest != self.number:
            raise StaleAttempt(
                f"Attempt {self.number} of {self.paths.folder.name} is stale: attempt "
                f"{self.newest} has begun. This one is dropped; nothing needs to be done."
            )

    def end(self, outcome: Outcome) -> None:
        """See `RunOwner`."""

    def release(self) -> None:
        """See `RunOwner`."""
        self.lock.write("")


class _StopFileSuffices:
    """The signal under a folder: does nothing, since every worker sees the stop file itself."""

    def send(self) -> None:
        """See `StopSignal`."""

    def withdraw(self) -> None:
        """See `StopSignal`."""


def leave_notice(paths: RunPaths, attempt: int, where: str) -> None:
    """Make a run directory whose attempt numbers go on after those of an archived run.

    Args:
        paths: of the new run.
        attempt: newest number of the archived run.
        where: path or URL of the archived run.
    """
    paths.attempt(attempt).mkdir(parents=True)
    (paths.attempt(attempt) / MOVED).write_text(f"This attempt lies in {where}\n")


def _free(path: Path) -> Path:
    """The path, or with a number appended the first one that does not exist yet."""
    number, candidate = 2, path
    while candidate.exists():
        candidate = Path(f"{path}.{number}")
        number += 1
    return candidate
