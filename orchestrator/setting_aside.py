"""Make room for a run of another configuration without deleting anything."""

from pathlib import Path

from orchestrator.claim import held
from orchestrator.places import RunPlace
from orchestrator.plan import PlannedCell
from trainer.manifest import fingerprint_of


def set_aside(place: RunPlace, cell: PlannedCell) -> Path:
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
    with held(place.lock, "setting the run aside"):
        last = max(place.newest_attempt(), cell.published_attempt)
        old = cell.row.fingerprint if cell.row is not None else fingerprint_of(place.folder)
        target = _free(place.folder.with_name(f"{place.folder.name}~{(old or 'unknown')[:8]}"))
        place.folder.rename(target)
    place.attempt(last).mkdir(parents=True)
    (place.attempt(last) / "moved.txt").write_text(f"This attempt lies in {target}\n")
    return target


def _free(path: Path) -> Path:
    """The path, with a number behind it when it is taken."""
    number, found = 2, path
    while found.exists():
        found = path.with_name(f"{path.name}.{number}")
        number += 1
    return found
