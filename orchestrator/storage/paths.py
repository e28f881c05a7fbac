"""The names of files under a root: of a run, of a grid; no other module joins these paths.

Under s3://bucket/prefix the objects have the names that files have under a folder. A run then
works in a scratch folder of its machine, which `sync` keeps equal to its objects.
"""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """The folder of one run; trainer and orchestrator write beside each other.

    Attributes:
        folder: ``<root>/runs/<key>``, or the scratch folder for it.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Of the run's objects, their common beginning."""
        return f"runs/{self.folder.name}"

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
        """Number of the newest attempt in this folder; 0 without one. `Root` knows of others."""
        try:
            with os.scandir(self.attempts) as entries:
                names = [entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return 0
        return max((int(name) for name in names if name.isdigit()), default=0)


@dataclass(frozen=True)
class GridPaths:
    """The folder of one grid: who launches it, and the files that ask a launch to stop.

    Attributes:
        folder: ``<root>/grids/<name>``, or the scratch folder for it.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Of the grid's objects, their common beginning."""
        return f"grids/{self.folder.name}"

    @property
    def lock(self) -> Path:
        """Locked by the launch that runs; its text says who."""
        return self.folder / "lock"

    def stop_file(self, launch_id: str) -> Path:
        """Exists as soon as every run of that launch shall stop at its next step."""
        return self.folder / f"stop-{launch_id}"
