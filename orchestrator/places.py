"""Where everything under a root lies; no other module joins these paths.

Only the results may lie in an object store. Runs and grids need a folder with locks and renames.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPlace:
    """The folder of one run; trainer and orchestrator write beside each other.

    Attributes:
        folder: ``<root>/runs/<key>``.
    """

    folder: Path

    @property
    def lock(self) -> Path:
        """Locked by the attempt that owns the folder; its text says who."""
        return self.folder / "lock"

    @property
    def config(self) -> Path:
        """The run's configuration, written by the trainer."""
        return self.folder / "config.json"

    @property
    def events(self) -> Path:
        """What happened to the run, one JSON object per line."""
        return self.folder / "events.jsonl"

    @property
    def progress(self) -> Path:
        """How far the run is, replaced at most every second."""
        return self.folder / "progress.json"

    @property
    def attempts(self) -> Path:
        """One numbered folder per start."""
        return self.folder / "attempts"

    def attempt(self, number: int) -> Path:
        """Folder of one start."""
        return self.attempts / f"{number:04d}"

    def outcome(self, number: int) -> Path:
        """How an attempt ended; missing while it runs, and for ever if it was killed."""
        return self.attempt(number) / "outcome.json"

    def log(self, number: int) -> Path:
        """Traceback and messages of an attempt."""
        return self.folder / "logs" / f"attempt-{number:04d}.log"

    def newest_attempt(self) -> int:
        """Number of the newest attempt; 0 without one."""
        if not self.attempts.is_dir():
            return 0
        names = (path.name for path in self.attempts.iterdir())
        return max((int(name) for name in names if name.isdigit()), default=0)


@dataclass(frozen=True)
class GridPlace:
    """The folder of one grid: who launches it, and the files that ask a launch to stop.

    Attributes:
        folder: ``<root>/grids/<name>``.
    """

    folder: Path

    @property
    def lock(self) -> Path:
        """Locked by the launch that runs; its text says who."""
        return self.folder / "lock"

    def stop_file(self, launch_id: str) -> Path:
        """Exists as soon as every run of that launch shall stop at its next step."""
        return self.folder / f"stop-{launch_id}"


@dataclass(frozen=True)
class Places:
    """Everything under one root.

    Attributes:
        root: a folder, as the user wrote it.
    """

    root: Path

    @classmethod
    def at(cls, root: str) -> "Places":
        """The places under a root given on a command line.

        Raises:
            ValueError: the root is a URL.
        """
        if "://" in root and not root.startswith("file://"):
            raise ValueError(
                f"root={root} is a URL, but runs need locks and renames, which only a folder has. "
                "Choose a folder; results can be copied to object storage afterwards."
            )
        return cls(Path(root.removeprefix("file://")).expanduser().absolute())

    def run(self, key: str) -> RunPlace:
        """Place of a cell's run."""
        return RunPlace(self.root / "runs" / key)

    def grid(self, name: str) -> GridPlace:
        """Place of a grid."""
        return GridPlace(self.root / "grids" / name)

    def tables(self, name: str) -> Path:
        """Folder of a grid's printed tables."""
        return self.root / "tables" / name

    @property
    def code(self) -> Path:
        """Copies of the code that launches here ran, by sha256."""
        return self.root / "code"

    @property
    def rows(self) -> Path:
        """Folder of the published rows."""
        return self.root / "results" / "rows"
