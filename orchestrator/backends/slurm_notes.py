"""What jobs tell the controller: one small file per cell, replaced at every turn.

The controller reads one folder instead of asking Slurm, and may be dead meanwhile.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from orchestrator.trial import Outcome


@dataclass(frozen=True)
class Note:
    """The newest word of a cell's job.

    Attributes:
        batch: name of the batch that the job belongs to.
        job_id: Slurm's number, such as 17 or 17_3.
        restart: how often Slurm started this job before.
        phase: "ended" means that this start of the job is over.
        outcome: how it ended.
        problem: why a stopped job could not ask for another start.
    """

    key: str
    batch: str
    job_id: str
    restart: int
    host: str
    phase: Literal["started", "ended"]
    outcome: Outcome | None = None
    problem: str = ""

    def write(self, folder: Path) -> None:
        """Replace the cell's note."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{self.key}.tmp"
        part.write_text(json.dumps(asdict(self)))
        part.replace(folder / f"{self.key}.json")


def read_note(path: Path) -> Note | None:
    """The note of a file; None when there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    outcome = found.pop("outcome")
    return Note(**found, outcome=Outcome(**outcome) if outcome else None)


class Mailbox:
    """Reads each note once after every change.

    Args:
        folder: of the notes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[int, int]] = {}

    def news(self) -> Iterator[Note]:
        """Notes that are new or changed since the last call."""
        if not self._folder.is_dir():
            return
        for path in self._folder.glob("*.json"):
            try:
                found = path.stat()
            except OSError:
                continue
            mark = (found.st_mtime_ns, found.st_ino)
            if self._seen.get(path.name) == mark:
                continue
            self._seen[path.name] = mark
            note = read_note(path)
            if note is not None:
                yield note
