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

from datasets.mirror import MANIFEST, Mirror
from datasets.storage import Storage
from orchestrator.claim import Holder, holder_of
from orchestrator.places import Places, RunPlace
from orchestrator.progress import Progress, as_progress, read_progress
from orchestrator.run_mirror import MARKER
from orchestrator.store import SHORT_PATIENCE, store_of
from orchestrator.store_claim import IDLE_BYTES, read_claim
from trainer.journal import PROGRESS
from trainer.manifest import FOLDER, Manifest, newest, newest_step

_THREADS = 16
_PROGRESS_SECONDS = 5.0  # between two looks of a screen at a run elsewhere
_glanced: dict[str, tuple[float, Progress | None]] = {}


@dataclass(frozen=True)
class Sight:
    """A run at a moment.

    Attributes:
        holder: who holds it.
        attempt: number of its newest attempt; 0 without one.
        newest: commit record of its newest checkpoint.
    """

    holder: Holder | None = None
    attempt: int = 0
    newest: Manifest | None = None


def look(places: Places, keys: Collection[str], done: Collection[str] = ()) -> dict[str, Sight]:
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

    def sight(key: str) -> Sight:
        name, holder, attempt, newest = places.run(key).name, None, 0, None
        size = sizes.get(f"{name}/lock", 0)
        if size > IDLE_BYTES or (size and key not in done):
            claim, holder = read_claim(storage, f"{name}/lock")
            attempt = claim.attempt
        if f"{name}/{MANIFEST}" in sizes and key not in done:
            newest = _newest_pushed(storage, name)
        return Sight(holder, attempt, newest)

    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(keys, pool.map(sight, keys), strict=True))


def holder(place: RunPlace) -> Holder | None:
    """Who holds a run now."""
    if not place.url:
        return holder_of(place.lock)
    return read_claim(_store(place), f"{place.name}/lock")[1]


def newest_attempt(place: RunPlace) -> int:
    """Number of a run's newest attempt; 0 without one."""
    if not place.url:
        return place.newest_attempt()
    return read_claim(_store(place), f"{place.name}/lock")[0].attempt


def seen(place: RunPlace, *, also: Collection[str] = ()) -> RunPlace:
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
    view = RunPlace(_views() / place.folder.name)
    view.folder.mkdir(exist_ok=True)
    if newest:
        view.attempt(newest).mkdir(parents=True, exist_ok=True)
    Mirror(
        _store(place), place.name, wanted=lambda path: not path.endswith(".pt") or path in also
    ).pull(view.folder)
    return view


def step_of(place: RunPlace) -> int | None:
    """Step of a run's newest checkpoint; None without one, or where nobody can tell."""
    with suppress(OSError):
        return newest_step(seen(place).folder)
    return None


def glance(place: RunPlace) -> Progress | None:
    """How far a run is, for a screen that asks every second."""
    if not place.url or (place.folder / MARKER).exists():
        return read_progress(place)
    when, found = _glanced.get(place.name, (-_PROGRESS_SECONDS, None))
    if time.monotonic() - when > _PROGRESS_SECONDS:
        with suppress(OSError):
            found = _pushed_progress(_store(place), place.name)
        _glanced[place.name] = (time.monotonic(), found)
    return found


def progresses(places: Places, keys: Iterable[str]) -> dict[str, Progress | None]:
    """How far some runs are."""
    wanted = list(keys)
    if not places.url:
        return {key: read_progress(places.run(key)) for key in wanted}
    storage = _store(places)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda key: _pushed_progress(storage, places.run(key).name), wanted)
        return dict(zip(wanted, found, strict=True))


def _look_at_folders(
    places: Places, keys: Iterable[str], done: Collection[str]
) -> dict[str, Sight]:
    runs = places.runs
    try:
        with os.scandir(runs) as entries:
            there = {entry.name for entry in entries}
    except FileNotFoundError:
        there = set()
    return {
        key: _look_at_folder(RunPlace(runs / key), key in done) if key in there else Sight()
        for key in keys
    }


def _look_at_folder(place: RunPlace, is_done: bool) -> Sight:
    holder = holder_of(place.lock)
    if is_done:  # whatever its checkpoints are: ten thousand folders are not opened
        return Sight(holder)
    return Sight(holder, place.newest_attempt(), newest(place.folder))


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


def _store(place: Places | RunPlace) -> Storage:
    return store_of(place.url, patience=SHORT_PATIENCE)


@cache
def _views() -> Path:
    """A folder of this process for copies."""
    folder = Path(tempfile.mkdtemp(prefix="ipixmatch-view-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
