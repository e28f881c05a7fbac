"""Keeps the objects of a run equal to the scratch folder in which it trains.

Checkpoints are replaced by rename and never written to, so links to them are a picture of one
moment; the push works on that picture, and training goes on meanwhile.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from orchestrator.storage import events
from orchestrator.storage.lock import background_thread
from orchestrator.storage.mirror import Mirror, Overtaken
from orchestrator.storage.paths import RunPaths
from orchestrator.storage.s3_root import SHORT_PATIENCE, storage_of
from trainer.checkpoint_manifest import FOLDER

MARKER = ".attempt"  # in the scratch folder: the attempt that it is the work of
_LOOK_SECONDS = 0.5
_PUSH_SECONDS = 15.0  # between two pushes that bring no checkpoint
_TRIES = 100


class RunUploader:
    """The objects of one attempt's run, and the thread that pushes them.

    Args:
        place: of the run; its folder is the scratch folder.
        attempt: number of this attempt.
    """

    def __init__(self, place: RunPaths, attempt: int) -> None:
        self._place = place
        self._mirror = Mirror(storage_of(place.url), place.name, attempt, is_synced)
        self._pushed: tuple[str, ...] | None = None
        self.is_overtaken = False

    def push(self) -> None:
        """Make the objects equal to the folder, waiting as long as the store may need.

        Raises:
            Overtaken: a newer attempt has begun.
            Unreachable: the store failed for too long; the last push stands, and so does the
                scratch folder.
        """
        self._push(self._mirror)

    def sweep(self) -> None:
        """Remove objects of pushes that were killed; no older attempt can push any more."""
        self._mirror.sweep()

    def pushing(self) -> AbstractContextManager[None]:
        """Push from a thread until the block ends: at once with every checkpoint."""
        return background_thread(self._loop, "pushes")

    def _loop(self, stop: threading.Event) -> None:
        storage = storage_of(self._place.url, patience=SHORT_PATIENCE)
        hasty = Mirror(storage, self._place.name, self._mirror.attempt, is_synced)
        last, was_silent = time.monotonic(), False
        while not stop.wait(_LOOK_SECONDS):
            is_due = time.monotonic() - last > _PUSH_SECONDS
            if not is_due and (was_silent or _committed(self._place.folder) == self._pushed):
                continue
            try:
                self._push(hasty)
            except Overtaken:
                self.is_overtaken = True
                return
            except OSError as error:  # the last push, at the end, may not fail
                self._note(was_silent, "store_silent", error=str(error))
                was_silent = True
            else:
                self._note(not was_silent, "store_answers")
                was_silent = False
            last = time.monotonic()

    def _push(self, mirror: Mirror) -> None:
        folder = self._place.folder
        picture = folder.with_name(f".{folder.name}.push")
        try:
            committed = _take_picture(folder, picture)
            mirror.push(picture)
            self._pushed = committed
        finally:
            shutil.rmtree(picture, ignore_errors=True)

    def _note(self, is_known: bool, event: str, **facts: str) -> None:
        """A line of the run's diary about a change."""
        if not is_known:
            with suppress(OSError):
                events.append(self._place.events, event, **facts)


def is_synced(path: str) -> bool:
    """Whether a path below a run's folder belongs to the run's objects."""
    name = path.rpartition("/")[2]
    return path != "lock" and not name.startswith(".") and not name.endswith(".tmp")


def fetch(place: RunPaths, newest: int) -> None:
    """Make the scratch folder hold the run as it stands.

    What another attempt left here is kept if that was the newest one: it may be ahead of its last
    push, and never behind.

    Args:
        place: of a run whose claim we hold.
        newest: number of the newest attempt.

    Raises:
        Unreachable: the store failed for too long.
    """
    marker = place.folder / MARKER
    with suppress(OSError, ValueError):
        if newest and int(marker.read_text()) == newest:
            return
    marker.unlink(missing_ok=True)  # until all is here, it is the work of no attempt
    mirror = Mirror(storage_of(place.url), place.name, wanted=is_synced)
    if not mirror.pull(place.folder):
        empty(place)


def empty(place: RunPaths) -> None:
    """Remove a run from the scratch folder, where nothing is that the store has not."""
    (place.folder / MARKER).unlink(missing_ok=True)
    for path in place.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path != place.lock:
            path.unlink()


def followed(place: RunPaths, attempt: int) -> Path:
    """Where a rank above 0 reads what rank 0, perhaps on another machine, goes on from."""
    with suppress(OSError, ValueError):
        if not place.url or int((place.folder / MARKER).read_text()) == attempt:
            return place.folder
    own = place.folder.with_name(f"{place.folder.name}.rank{int(os.environ['RANK']):04d}")
    Mirror(storage_of(place.url), place.name, wanted=is_synced).pull(own)
    return own


def newest_pushed(place: RunPaths) -> int:
    """Number of the newest attempt that pushed something."""
    return Mirror(storage_of(place.url), place.name).newest_attempt()


def mark(place: RunPaths, attempt: int) -> None:
    """Say that the scratch folder is the work of an attempt from now on."""
    (place.folder / MARKER).write_text(str(attempt))


def _committed(folder: Path) -> tuple[str, ...]:
    """The checkpoints that are whole, as a value that changes with any of them."""
    found = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        with suppress(FileNotFoundError):
            found.append(f"{path.name} {path.stat().st_mtime_ns}")
    return tuple(found)


def _take_picture(folder: Path, picture: Path) -> tuple[str, ...]:
    """Link the checkpoints as they are at one moment, and copy what grows."""
    for _ in range(_TRIES):
        shutil.rmtree(picture, ignore_errors=True)
        before = _state(folder / FOLDER)
        committed = _committed(folder)
        with suppress(FileNotFoundError):
            for name in before:
                _place(folder / FOLDER / name, picture / FOLDER / name, _link)
            if _state(folder / FOLDER) == before:
                break
    else:
        raise OSError(f"{folder / FOLDER} changed {_TRIES} times while it was looked at.")
    for path in folder.rglob("*"):
        below = path.relative_to(folder)
        if path.is_file() and is_synced(below.as_posix()) and below.parts[0] != FOLDER:
            with suppress(FileNotFoundError):
                _place(path, picture / below, shutil.copy2)
    return committed


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    """The files of the checkpoint folder by name, with what changes when one is replaced."""
    found = {}
    if folder.is_dir():
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                if is_synced(path.name):
                    found[path.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def _place(source: Path, target: Path, put: Callable[[Path, Path], object]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    put(source, target)


def _link(source: Path, target: Path) -> None:
    target.hardlink_to(source)
