"""What anybody may see of the runs under a root, whoever holds them; changes nothing.

Under an object store a look costs requests, so many cells are looked at together, and what a cell
does not need is not asked for.
"""

import atexit
import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from datasets.storage.base import Storage
from orchestrator.storage.lock import LockOwner, lock_owner
from orchestrator.storage.mirror import MANIFEST, Mirror
from orchestrator.storage.paths import RootPaths, RunPaths
from orchestrator.storage.run_sync import MARKER
from orchestrator.storage.s3_lock import IDLE_BYTES, read_lock
from orchestrator.storage.s3_root import SHORT_PATIENCE, storage_of
from trainer.checkpoint_manifest import FOLDER, Manifest, newest, newest_step
from trainer.run_log import PROGRESS


@dataclass(frozen=True)
class Progress:
    """Where a run stands; None where nothing is known yet.

    Attributes:
        age_seconds: since the trainer said so.
    """

    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    epochs: int = 0
    miou_percent: float | None = None
    best_miou_percent: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    age_seconds: float | None = None

    @property
    def fraction(self) -> float:
        """Part of the steps that is done, from 0 to 1."""
        return self.step / self.total_steps if self.total_steps else 0.0


def read_progress(place: RunPaths) -> Progress | None:
    """The progress of a run; None before its first step."""
    try:
        return as_progress(place.progress.read_bytes())
    except (OSError, ValueError):
        return None


def as_progress(content: bytes) -> Progress:
    """What the trainer's file says.

    Raises:
        ValueError: it is cut short.
    """
    found = json.loads(content)
    written = found.pop("time", None)
    known = {name: found[name] for name in Progress.__dataclass_fields__ if name in found}
    age = time.time() - written if written else None
    return Progress(**known | {"age_seconds": age})


_THREADS = 16
_PROGRESS_SECONDS = 5.0  # between two looks of a screen at a run elsewhere
_glanced: dict[str, tuple[float, Progress | None]] = {}


@dataclass(frozen=True)
class RunState:
    """A run at a moment.

    Attributes:
        holder: who holds it.
        attempt: number of its newest attempt; 0 without one.
        newest: commit record of its newest checkpoint.
    """

    holder: LockOwner | None = None
    attempt: int = 0
    newest: Manifest | None = None


def run_states(
    places: RootPaths, keys: Collection[str], done: Collection[str] = ()
) -> dict[str, RunState]:
    """The runs of some cells; one that never began is seen as nothing.

    Args:
        places: under a root.
        keys: of the cells.
        done: cells whose end is known: only who holds them counts.
    """
    if not places.url:
        return _look_at_folders(places, keys, done)
    storage = _store(places)
    sizes = {entry.name: entry.size for entry in storage.entries("runs/")}

    def sight(key: str) -> RunState:
        name, holder, attempt, newest = places.run(key).name, None, 0, None
        size = sizes.get(f"{name}/lock", 0)
        if size > IDLE_BYTES or (size and key not in done):
            claim, holder = read_lock(storage, f"{name}/lock")
            attempt = claim.attempt
        if f"{name}/{MANIFEST}" in sizes and key not in done:
            newest = _newest_pushed(storage, name)
        return RunState(holder, attempt, newest)

    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(keys, pool.map(sight, keys), strict=True))


def lock_owner_of_run(place: RunPaths) -> LockOwner | None:
    """Who holds a run now."""
    if not place.url:
        return lock_owner(place.lock)
    return read_lock(_store(place), f"{place.name}/lock")[1]


def newest_attempt(place: RunPaths) -> int:
    """Number of a run's newest attempt; 0 without one."""
    if not place.url:
        return place.newest_attempt()
    return read_lock(_store(place), f"{place.name}/lock")[0].attempt


def local_copy(place: RunPaths, *, also: Collection[str] = ()) -> RunPaths:
    """A folder to read a run from: its own, or a copy of its newest push without the weights.

    Args:
        place: of the run.
        also: files of weights that are wanted, too.
    """
    if not place.url:
        return place
    newest = newest_attempt(place)
    with suppress(OSError, ValueError):
        if newest and int((place.folder / MARKER).read_text()) == newest:
            return place  # it runs, or ran last, on this machine
    view = RunPaths(_views() / place.folder.name)
    view.folder.mkdir(exist_ok=True)
    if newest:
        view.attempt(newest).mkdir(parents=True, exist_ok=True)
    Mirror(
        _store(place), place.name, wanted=lambda path: not path.endswith(".pt") or path in also
    ).pull(view.folder)
    return view


def step_of(place: RunPaths) -> int | None:
    """Step of a run's newest checkpoint; None without one, or where nobody can tell."""
    with suppress(OSError):
        return newest_step(local_copy(place).folder)
    return None


def cached_progress(place: RunPaths) -> Progress | None:
    """How far a run is, for a screen that asks every second."""
    if not place.url or (place.folder / MARKER).exists():
        return read_progress(place)
    when, found = _glanced.get(place.name, (-_PROGRESS_SECONDS, None))
    if time.monotonic() - when > _PROGRESS_SECONDS:
        with suppress(OSError):
            found = _pushed_progress(_store(place), place.name)
        _glanced[place.name] = (time.monotonic(), found)
    return found


def progress_of_runs(places: RootPaths, keys: Iterable[str]) -> dict[str, Progress | None]:
    """How far some runs are."""
    wanted = list(keys)
    if not places.url:
        return {key: read_progress(places.run(key)) for key in wanted}
    storage = _store(places)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda key: _pushed_progress(storage, places.run(key).name), wanted)
        return dict(zip(wanted, found, strict=True))


def _look_at_folders(
    places: RootPaths, keys: Iterable[str], done: Collection[str]
) -> dict[str, RunState]:
    runs = places.runs
    try:
        with os.scandir(runs) as entries:
            there = {entry.name for entry in entries}
    except FileNotFoundError:
        there = set()
    return {
        key: _look_at_folder(RunPaths(runs / key), key in done) if key in there else RunState()
        for key in keys
    }


def _look_at_folder(place: RunPaths, is_done: bool) -> RunState:
    holder = lock_owner(place.lock)
    if is_done:  # whatever its checkpoints are: ten thousand folders are not opened
        return RunState(holder)
    return RunState(holder, place.newest_attempt(), newest(place.folder))


def _newest_pushed(storage: Storage, name: str) -> Manifest | None:
    """The commit record of the newest checkpoint that is in the store."""
    mirror = Mirror(storage, name)
    steps = [path for path in mirror.paths() if path.startswith(f"{FOLDER}/step-")]
    records = sorted(path for path in steps if path.endswith(".json"))
    with suppress(FileNotFoundError, ValueError, TypeError):
        return Manifest(**json.loads(mirror.read(records[-1]))) if records else None
    return None


def _pushed_progress(storage: Storage, name: str) -> Progress | None:
    with suppress(FileNotFoundError, ValueError):
        return as_progress(Mirror(storage, name).read(PROGRESS))
    return None


def _store(place: RootPaths | RunPaths) -> Storage:
    return storage_of(place.url, patience=SHORT_PATIENCE)


@cache
def _views() -> Path:
    """A folder of this process for copies."""
    folder = Path(tempfile.mkdtemp(prefix="ipixmatch-view-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
