"""Files through which the launch tells a Tune trial how the job that it watches ended."""

import time
from pathlib import Path

from datasets.files import atomic_write
from orchestrator.trial import Outcome

_LOOK_SECONDS = 0.5  # between two looks for the end of a job
_LEAVE = "leave"  # name of the file that ends the wait of every watching trial


def wait_for_outcome(folder: Path, key: str) -> Outcome:
    """Wait until the job of a cell has ended, or the launch stops watching."""
    path = _outcome_path(folder, key)
    while not path.exists():
        if (folder / _LEAVE).exists():
            return Outcome("stopped", error_text="its job goes on in Slurm")
        time.sleep(_LOOK_SECONDS)
    outcome = Outcome.from_json(path.read_text())
    path.unlink()  # a later attempt of the cell waits for a file of its own
    return outcome


def write_outcome(folder: Path, key: str, outcome: Outcome) -> None:
    """Let the Tune trial that waits for a cell return."""
    atomic_write(_outcome_path(folder, key), outcome.to_json())


def stop_waiting(folder: Path) -> None:
    """Let every waiting Tune trial return; the jobs go on."""
    (folder / _LEAVE).touch()


def _outcome_path(folder: Path, key: str) -> Path:
    """Where the outcome of a cell's job is written."""
    return folder / f"outcome-{key}.json"
