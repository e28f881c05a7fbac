"""The names of the files of a run and of a grid; no other module joins these paths.

Under s3://bucket/prefix the objects have the names that files have under a folder. A run then
trains in a scratch folder of its machine, and `sync` copies that to the objects.
"""

import os
from dataclasses import dataclass
from pathlib import Path

LOCK, ATTEMPTS = "lock", "attempts"  # in the folder of a run


@dataclass(frozen=True)
class RunPaths:
    """The run directory, in which both the trainer and the orchestrator write.

    Attributes:
        folder: ``<root>/runs/<key>``, or the scratch folder for it.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Common beginning of the names of the run's objects in a bucket."""
        return f"runs/{self.folder.name}"

    @property
    def lock(self) -> Path:
        """The lock file; its text names the attempt that owns the run directory."""
        return self.folder / LOCK

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
        return self.folder / ATTEMPTS

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
        """Number of the newest attempt in this folder; 0 without one. `Root` knows of others."""
        return newest_attempt_in(str(self.folder))


@dataclass(frozen=True)
class GridPaths:
    """The folder of one grid: who launches it, and the files that ask a launch to stop.

    Attributes:
        folder: ``<root>/grids/<name>``, or the scratch folder for it.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Common beginning of the names of the grid's objects in a bucket."""
        return f"grids/{self.folder.name}"

    @property
    def lock(self) -> Path:
        """The lock file; its text names the launch that owns the grid."""
        return self.folder / "lock"

    def stop_file(self, launch_id: str) -> Path:
        """Once this file exists, every run of that launch stops at its next step."""
        return self.folder / f"stop-{launch_id}"


def newest_attempt_in(folder: str) -> int:
    """As `RunPaths.newest_attempt`, by text: a Path takes longer than the look itself."""
    try:
        names = os.listdir(f"{folder}/{ATTEMPTS}")  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return max((int(name) for name in names if name.isdigit()), default=0)
