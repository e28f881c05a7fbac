"""What a root of runs and results offers, whether it is a folder or a bucket.

`open_root` in `orchestrator/storage/open.py` makes a `LocalRoot` or an `S3Root` of an address;
everybody else takes a `Root` and does not ask which one it is.
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

ResultKind = Literal["rows", "history"]


class ResultFolder(Protocol):
    """A flat folder of small files, each of which appears whole or not at all.

    Attributes:
        address: its path or URL.
    """

    address: str

    def names(self) -> set[str]:
        """Names of all files; none where the folder does not exist yet."""

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
        """Take it back when the launch is over."""


class RunOwner(Protocol):
    """The owner of a run; each attempt has its own."""

    @property
    def paths(self) -> RunPaths:
        """The folder in which it works."""

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
            Unreachable: the server failed for too long; another attempt may go on from here.
        """

    def end(self, outcome: Outcome) -> None:
        """The last thing that an attempt does, after its outcome is written down."""

    def release(self) -> None:
        """Spare others the wait for a heartbeat to grow old: this process is about to end."""


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
        scratch: the folder for runs at work that was chosen for a bucket; empty for the default of
            each machine, and for a folder.
        folder: of this machine, with what is no run and no result: grids, copies of the code.
        runs: folder of the runs, or of those that this machine works on.
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
        """The folder in which this machine runs a cell."""
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
        """Ask a server once whether it answers; a folder needs no question.

        Raises:
            Unreachable: nobody answers.
            PermissionError: it refuses us.
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
        """Who runs a cell now."""

    def newest_attempt(self, key: str) -> int:
        """Number of a run's newest attempt; 0 without one."""

    def newest_step(self, key: str) -> int | None:
        """Step of a run's newest checkpoint; None without one, or where nobody can tell."""
        with suppress(OSError):
            return newest_step(self.local_copy(key).folder)
        return None

    def local_copy(self, key: str, *, also: Collection[str] = ()) -> RunPaths:
        """A folder to read a run from: its own, or a copy of its newest push without the weights.

        Args:
            key: of the cell.
            also: files of weights that are wanted, too.
        """

    def folder_of_rank(self, key: str, attempt: int, rank: int) -> Path:
        """Where a rank above 0 reads what rank 0, perhaps on another machine, goes on from."""

    def own_run(
        self, key: str, what: str, *, wait_seconds: float, stop_file: str = ""
    ) -> AbstractContextManager[RunOwner]:
        """Own a run until the block ends.

        Args:
            key: of the cell.
            what: for what, in words; others read it.
            wait_seconds: how long to wait for an owner that may just be dying.
            stop_file: of the launch, on whatever machine.

        Raises:
            Busy: somebody else still does after that time.
            Unreachable: the server does not answer.
        """

    def own_grid(self, name: str, what: str) -> AbstractContextManager[Callable[[], bool]]:
        """Own a grid until the block ends; gives the question whether it was lost meanwhile.

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
            fingerprint: of the old run; None takes that of its newest checkpoint.
            published_attempt: newest attempt among the rows of the cell.

        Returns:
            Where the old run lies now.

        Raises:
            Busy: somebody runs it.
        """

    def results(self, kind: ResultKind) -> ResultFolder:
        """The folder of one file per attempt, with its row or with the history of its epochs."""

    def upload(self, paths: Sequence[Path]) -> list[str]:
        """Put printed files, or folders of them, where others find them; returns their URLs."""

    def stop_signal(self, stop_file: Path) -> StopSignal:
        """What tells workers on other machines that the launch of this stop file shall stop."""

    def log_hint(self, key: str, attempt: int) -> str:
        """Where, or with which command, the log of an attempt is read."""
