"""What can be read of a run without owning it: owner, attempts, progress; and its log of events."""

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.storage.file_lock import LockOwner
from orchestrator.storage.paths import RunPaths
from trainer.checkpoint_manifest import Manifest


@dataclass(frozen=True)
class RunState:
    """The state of a run at one moment.

    Attributes:
        owner: the process that runs it now.
        attempt: number of its newest attempt; 0 without one.
        newest: commit record of its newest checkpoint.
    """

    owner: LockOwner | None = None
    attempt: int = 0
    newest: Manifest | None = None


@dataclass(frozen=True)
class Progress:
    """Where a run stands; None where nothing is known yet.

    Attributes:
        work: what is done between two trainings, such as "masks 3/40"; empty while it trains.
        age_seconds: since the trainer wrote this.
    """

    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    epochs: int = 0
    miou_percent: float | None = None
    best_miou_percent: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    work: str = ""
    age_seconds: float | None = None

    @property
    def fraction(self) -> float:
        """Part of the steps that is done, from 0 to 1."""
        return self.step / self.total_steps if self.total_steps else 0.0


def parse_progress(content: bytes) -> Progress:
    """What the trainer's progress.json says.

    Raises:
        ValueError: it is cut short.
    """
    fields = json.loads(content)
    written = fields.pop("time", None)
    known = {name: fields[name] for name in Progress.__dataclass_fields__ if name in fields}
    age = time.time() - written if written else None
    return Progress(**known | {"age_seconds": age})


def read_progress(paths: RunPaths) -> Progress | None:
    """The progress of a run whose folder is here; None before its first step."""
    try:
        return parse_progress(paths.progress.read_bytes())
    except (OSError, ValueError):
        return None


def events_of(paths: RunPaths) -> list[dict[str, Any]]:
    """What happened to a run, oldest first; a line that a crash cut short is left out."""
    events = []
    with suppress(OSError):
        for line in paths.events.read_text().splitlines():
            with suppress(ValueError):
                events.append(json.loads(line))
    return events


def append_event(paths: RunPaths, event: str, **facts: Any) -> None:
    """Add a line to the event log of a run.

    A single write with O_APPEND, so that lines of several processes never mix.

    Args:
        paths: of the run; its folder exists.
        event: what happened, one word.
        facts: JSON values.
    """
    line = json.dumps({"time": datetime.now(UTC).isoformat(), "event": event, **facts}) + "\n"
    descriptor = os.open(paths.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
