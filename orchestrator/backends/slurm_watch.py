"""A trial whose work is done by a Slurm job: what its Ray Tune trial does is to wait."""

import time
from pathlib import Path

from orchestrator.trial import Outcome, Trial

_LOOK_SECONDS = 0.5
_LEAVE = "leave"


def run(trial: Trial) -> Outcome:
    """Wait until the dispatcher has judged the trial's job, or the launch leaves it alone."""
    folder = Path(trial.scratch)
    path = _outcome_path(folder, trial)
    while not path.exists():
        if (folder / _LEAVE).exists():
            return Outcome("stopped", error_text="its job goes on in Slurm")
        time.sleep(_LOOK_SECONDS)
    outcome = Outcome.from_json(path.read_text())
    path.unlink()
    return outcome


def lay_down(folder: Path, trial: Trial, outcome: Outcome) -> None:
    """Let the trial that waits for it return."""
    path = _outcome_path(folder, trial)
    part = path.with_suffix(".tmp")
    part.write_text(outcome.to_json())
    part.replace(path)


def leave(folder: Path) -> None:
    """Let every waiting trial return; the jobs go on."""
    (folder / _LEAVE).touch()


def _outcome_path(folder: Path, trial: Trial) -> Path:
    """Where the judged outcome of a trial is laid down."""
    return folder / f"outcome-{trial.key}.json"
