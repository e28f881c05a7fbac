"""How far a run is, read from the file the trainer keeps; needs no torch."""

import json
import time
from dataclasses import dataclass

from orchestrator.places import RunPlace


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


def read_progress(place: RunPlace) -> Progress | None:
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
