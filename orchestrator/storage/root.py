"""What a root of runs and results offers, whether it is a folder or a bucket.

`open_root` in `orchestrator/storage/open.py` makes a `LocalRoot` or an `S3Root` of an address; all
other code takes a `Root` and does not ask which one it is.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from orchestrator.storage.file_lock import LockOwner
from orchestrator.storage.paths import GridPaths, RunPaths
from orchestrator.storage.run_state import Progress, RunState
from orchestrator.trial import Outcome
from trainer.checkpoint_manifest import newest_step

ResultKind = Literal["rows", "history", "designs"]


class ResultFolder(Protocol):
    """A flat folder of small files, each of which appears whole or not at all.

    Attributes:
        address: its path or URL.
    """

    address: str

    def names(self, starts: Sequence[str] = ("",)) -> set[str]:
        """Names of the files that start with one of some words; a server lists no others.

        None where the folder does not exist yet.
        """

    def present(self, names: Iterable[str]) -> set[str]:
        """Which of some files are there; costs the same however many others are."""

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Contents by name; FileNotFoundError when one is gone."""

    def put(self, name: str, content: bytes) -> None:
        """Write a file atomically and durably."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone already are fine."""

    def compaction_lock(self) -> AbstractContextManager[bool]:
        """Keep other compactions out until the block ends; gives False where one runs."""


class StopSignal(Protocol):
    """Tells the workers of a launch on other machines to stop."""

    def send(self) -> None:
        """Send it without waiting for an answer, since a signal handler calls this."""

    def withdraw(self) -> None:
        """Remove the signal when the launch is over."""


class RunOwner(Protocol):
    """An attempt that holds the lock of a run directory."""

    @property
    def paths(self) -> RunPaths:
        """The run directory in which the attempt works."""

    @property
    def newest(self) -> int:
        """Number of the newest attempt."""

    def begin(self, published: int) -> int:
        """Fetch the run to this machine and take the next attempt number.

        Args:
            published: newest attempt among the rows of the cell; the number is above it.
        """

    def start(self) -> None:
        """Exclude every older attempt, after the start was written to the run directory."""

    def training(self) -> AbstractContextManager[None]:
        """Push checkpoints to a bucket while the block trains; a folder needs nothing."""

    def must_end(self) -> bool:
        """Whether the lock was lost, or a launch on another machine asks for a stop."""

    def save(self) -> None:
        """Make sure that the run is stored, and that this attempt is the newest.

        Raises:
            StaleAttempt: a newer attempt has begun; nothing may be published.
            Unreachable: the server failed for too long; another attempt may go on from here.
        """

    def end(self, outcome: Outcome) -> None:
        """The last thing that an attempt does, after its outcome is written down."""

    def release(self) -> None:
        """Give up the lock before this process is killed.

        Otherwise the next attempt would wait until the heartbeat is too old.
        """


@dataclass(frozen=True)
class Probe:
    """What a test of a root found, for `doctor`.

    Attributes:
        kind: "folder" or "bucket".
        advice: what to do about it; may be empty where it works.
    """

    kind: str
    works: bool
    text: str
    advice: str = ""


class Root(Protocol):
    """Where runs and results lie.

    Attributes:
        address: as another process may be given it: a folder, or s3://bucket/prefix.
        scratch: with a bucket, the folder in which runs train; empty for the default of each
            machine, and for a root that is a folder.
        folder: of this machine, for all that is no run and no result: grids, copies of the code.
        runs: folder of the run directories; with a bucket, of those on this machine.
        printed: folder for what people open: tables, reports, exports.
        look_seconds: pause between two looks at a log that grows.
        costs_requests: whether each look at a run is a request to a server.
    """

    address: str
    scratch: str
    folder: Path
    runs: Path
    printed: Path
    look_seconds: float
    costs_requests: bool

    def run(self, key: str) -> RunPaths:
        """The run directory of a cell on this machine."""
        return RunPaths(self.runs / key)

    def grid(self, name: str) -> GridPaths:
        """The folder of a grid."""
        return GridPaths(self.folder / "grids" / name)

    def tables(self, name: str) -> Path:
        """Folder of a grid's printed tables."""
        return self.printed / "tables" / name

    @property
    def code(self) -> Path:
        """Copies of the code that launches from here ran, by sha256."""
        return self.folder / "code"

    def check(self) -> None:
        """Ask the server of a bucket once whether it answers; a folder is not checked.

        Raises:
            Unreachable: no answer.
            PermissionError: it denies access.
            FileNotFoundError: there is no such bucket.
        """

    def probe(self) -> Probe:
        """Try what a launch needs of the root: writing, locking, room."""

    def states(self, keys: Collection[str], done: Collection[str] = ()) -> dict[str, RunState]:
        """The runs of some cells; one that never began has an empty state.

        Args:
            keys: of the cells.
            done: cells whose end is known: only their owners are asked for.
        """

    def progress(
        self, keys: Iterable[str], done: Collection[str] = ()
    ) -> dict[str, Progress | None]:
        """How far some runs are.

        Args:
            keys: of the cells.
            done: cells whose end is known: left out where a look costs a request.
        """

    def cached_progress(self, key: str) -> Progress | None:
        """How far a run is, for a screen that asks every second."""

    def lock_owner(self, key: str) -> LockOwner | None:
        """The process that runs a cell now; None without one."""

    def newest_attempt(self, key: str) -> int:
        """Number of a run's newest attempt; 0 without one."""

    def newest_step(self, key: str) -> int | None:
        """Step of a run's newest checkpoint; None without one or when it cannot be read."""
        with suppress(OSError):
            return newest_step(self.local_copy(key).folder)
        return None

    def local_copy(self, key: str, *, also: Collection[str] = ()) -> RunPaths:
        """A folder to read a run from: its run directory, or a copy of its newest push.

        Args:
            key: of the cell.
            also: files of weights to copy, which are left out otherwise.
        """

    def folder_of_rank(self, key: str, attempt: int, rank: int) -> Path:
        """Where a rank above 0 reads what rank 0, perhaps on another machine, goes on from."""

    def own_run(
        self, key: str, what: str, *, wait_seconds: float, stop_file: str = ""
    ) -> AbstractContextManager[RunOwner]:
        """Own a run until the block ends.

        Args:
            key: of the cell.
            what: the purpose, a few words that others are shown.
            wait_seconds: how long to wait for an owner that may just be dying.
            stop_file: its path on the machine of the launch.

        Raises:
            Busy: another process still does after that time.
            Unreachable: the server does not answer.
        """

    def own_grid(self, name: str, what: str) -> AbstractContextManager[Callable[[], bool]]:
        """Own a grid until the block ends; gives a function that says whether it was lost.

        Raises:
            Busy: another launch of the grid runs.
            Unreachable: the server does not answer.
        """

    def archive_run(self, key: str, fingerprint: str | None, *, published_attempt: int) -> str:
        """Move a run of another configuration to ``<key>~<first 8 of its fingerprint>``.

        Attempt numbers go on in the new folder, so that a row of an old attempt never counts as
        newer.

        Args:
            key: of the cell; its run may not exist any more.
            fingerprint: of the old run, where it left no checkpoint that says so.
            published_attempt: newest attempt among the rows of the cell.

        Returns:
            Where the old run lies now.

        Raises:
            Busy: an attempt runs in it.
        """

    def places(self, key: str) -> dict[int, str]:
        """The run directory of each attempt of a cell, by number; those that are gone are left out.

        It is ``runs/<key>``, or ``runs/<key>~<fingerprint>`` of a run that was set aside.
        """

    def results(self, kind: ResultKind) -> ResultFolder:
        """The folder of one file per attempt, with its row or with the history of its epochs.

        That of designs has one file per grid whose seeds run until settled.
        """

    def upload(self, paths: Sequence[Path]) -> list[str]:
        """Put printed files, or folders of them, where others find them; returns their URLs."""

    def stop_signal(self, stop_file: Path) -> StopSignal:
        """What stops workers on other machines; `stop_file` is that of their launch."""

    def log_hint(self, key: str, attempt: int) -> str:
        """Where, or with which command, the log of an attempt is read."""
