"""A trial in this process: no Ray, no other process, one rank."""

from orchestrator.attempt import run_trial
from orchestrator.trial import Outcome, Trial


def run(trial: Trial) -> Outcome:
    """Run the trial here and now."""
    return run_trial(trial)
