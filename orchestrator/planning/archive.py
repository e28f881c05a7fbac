"""Make room for a run of another configuration without deleting anything."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from orchestrator.planning.plan import PlannedCell
from orchestrator.storage.lock import file_lock
from orchestrator.storage.mirror import MANIFEST, Mirror
from orchestrator.storage.paths import RunPaths
from orchestrator.storage.run_state import local_copy
from orchestrator.storage.run_sync import empty, newest_pushed
from orchestrator.storage.s3_lock import s3_lock
from orchestrator.storage.s3_root import storage_of
from trainer.checkpoint_manifest import fingerprint_of

Name = TypeVar("Name", str, Path)


def archive_run(place: RunPaths, cell: PlannedCell) -> str:
    """Rename a run folder to ``<key>~<first 8 of its fingerprint>``.

    Attempt numbers go on in the new folder, so that a row of an old attempt never counts as newer.

    Args:
        place: the run; may not exist any more.
        cell: of that run.

    Returns:
        Where the old run lies now.

    Raises:
        Busy: somebody runs it.
    """
    if place.url:
        return _set_aside_in_store(place, cell)
    with file_lock(place.lock, "setting the run aside"):
        last = max(place.newest_attempt(), cell.published_attempt)
        old = cell.row.fingerprint if cell.row is not None else fingerprint_of(place.folder)
        aside = place.folder.with_name(f"{place.folder.name}~{(old or 'unknown')[:8]}")
        target = _free(aside, Path.exists)
        place.folder.rename(target)
    place.attempt(last).mkdir(parents=True)
    (place.attempt(last) / "moved.txt").write_text(f"This attempt lies in {target}\n")
    return str(target)


def _set_aside_in_store(place: RunPaths, cell: PlannedCell) -> str:
    """Copy the run's objects, the manifest last; then leave an empty run with the next number."""
    storage = storage_of(place.url)
    with (
        file_lock(place.lock, "setting the run aside"),
        s3_lock(place.url, f"{place.name}/lock", "setting the run aside") as hold,
    ):
        last = max(hold.attempt, newest_pushed(place), cell.published_attempt)
        old = cell.row.fingerprint if cell.row is not None else _pushed_fingerprint(place)
        free = _free(f"{place.name}~{(old or 'unknown')[:8]}", lambda n: bool(storage.entries(n)))
        names = [entry.name.removeprefix(place.name) for entry in storage.entries(f"{place.name}/")]
        for name in sorted(set(names) - {"/lock"}, key=lambda name: name == f"/{MANIFEST}"):
            storage.copy(place.name + name, free + name)
        hold.describe("setting the run aside", attempt=last)
        with tempfile.TemporaryDirectory(prefix="ipixmatch-aside-") as folder:
            note = RunPaths(Path(folder)).attempt(last) / "moved.txt"
            note.parent.mkdir(parents=True)
            note.write_text(f"This attempt lies in {place.url}/{free}\n")
            Mirror(storage, place.name, last).push(Path(folder))
        empty(place)
    return f"{place.url}/{free}"


def _pushed_fingerprint(place: RunPaths) -> str | None:
    return fingerprint_of(local_copy(place).folder)


def _free(name: Name, is_taken: Callable[[Name], bool]) -> Name:
    """The name, with a number behind it when it is taken."""
    number, found = 2, name
    while is_taken(found):
        found = type(name)(f"{name}.{number}")
        number += 1
    return found
