"""Where everything under a root lies; no other module joins these paths.

Under s3://bucket/prefix the objects have the names that files have under a folder. A run then
works in a scratch folder of its machine, which `run_mirror` keeps equal to its objects.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from datasets.storage.open import is_url

SCRATCH_VARIABLE = "IPIXMATCH_SCRATCH"  # of the environment; the option scratch= sets it


@lru_cache(maxsize=1)
def machine() -> str:
    """Names this start of this machine, and the container whose process numbers we see."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    identity = [os.uname().nodename, str(Path("/proc/self/ns/pid").readlink())]
    identity += [boot.read_text().strip()] if boot.exists() else []
    return hashlib.sha256(" ".join(identity).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunPaths:
    """The folder of one run; trainer and orchestrator write beside each other.

    Attributes:
        folder: ``<root>/runs/<key>``, or the scratch folder for it.
        url: of the root when it is an object store; others see the run through `sight`.
    """

    folder: Path
    url: str = ""

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
        """Number of the newest attempt in the folder; 0 without one. `sight` asks the root."""
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
        url: of the root when it is an object store.
    """

    folder: Path
    url: str = ""

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


@dataclass(frozen=True)
class RootPaths:
    """Everything under one root.

    Attributes:
        root: a folder, as the user wrote it; for an object store this machine's scratch folder.
        url: of the root when it is an object store.
    """

    root: Path
    url: str = ""

    @classmethod
    def at(cls, root: str) -> "RootPaths":
        """The places under a root given on a command line.

        Raises:
            ValueError: the root is a URL of another kind than s3://bucket/prefix.
        """
        if not is_url(root):
            return cls(Path(root.removeprefix("file://")).expanduser().absolute())
        scheme, _, place = root.rstrip("/").partition("://")
        bucket, _, prefix = place.partition("/")
        if "@" in bucket:
            raise ValueError(
                "The root has credentials in its URL, which would end up in logs and results. Give "
                "s3://bucket/prefix and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        if scheme != "s3" or not bucket:
            raise ValueError(f"root={root} is no place for runs; give DIR or s3://bucket/prefix.")
        url = f"s3://{bucket}/{prefix.strip('/')}".rstrip("/")
        # Two stores may have a bucket of the same name, and its scratch must not meet.
        store = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        digest = hashlib.sha256(f"{store} {url}".encode()).hexdigest()[:16]
        return cls(scratch_root() / f"{bucket}-{digest}", url)

    @property
    def address(self) -> str:
        """The root as another process may be given it."""
        return self.url or str(self.root)

    @property
    def printed(self) -> Path:
        """Folder for what people open: tables, reports, exports."""
        if not self.url:
            return self.root
        return Path("outputs").absolute() / self.url.removeprefix("s3://")

    @property
    def runs(self) -> Path:
        """Folder of the runs, or of those that this machine has in its scratch."""
        # A scratch that several machines share must not mix their runs.
        return (self.root / os.uname().nodename if self.url else self.root) / "runs"

    def run(self, key: str) -> RunPaths:
        """Place of a cell's run."""
        return RunPaths(self.runs / key, self.url)

    def grid(self, name: str) -> GridPaths:
        """Place of a grid."""
        return GridPaths(self.root / "grids" / name, self.url)

    def tables(self, name: str) -> Path:
        """Folder of a grid's printed tables."""
        return self.printed / "tables" / name

    @property
    def code(self) -> Path:
        """Copies of the code that launches here ran, by sha256."""
        return self.root / "code"

    @property
    def rows(self) -> str:
        """Where the published rows lie."""
        return f"{self.address}/results/rows"


def scratch_root() -> Path:
    """Folder of this machine for runs whose root is an object store."""
    chosen = os.environ.get(SCRATCH_VARIABLE)
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen or f"{home}/ipixmatch/scratch").expanduser().absolute()
