"""Rows of the results: made from a trial and its summary, looked up by cell."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets.location import spec_of
from orchestrator.failures import Failure
from orchestrator.provenance import CHECKOUT, provenance
from orchestrator.results import Row, cell_rows
from orchestrator.trial import Trial
from sweeps.cell import Cell
from trainer.compose import from_json
from trainer.summary import Summary


def has_done_row(trial: Trial) -> bool:
    """Whether the cell is done under this trial's configuration, since the launch looked."""
    return any(
        row.status == "done"
        and row.fingerprint == trial.fingerprint
        and row.attempt > trial.published_attempt
        for row in cell_rows(trial.root, trial.key)
    )


def done_row(trial: Trial, attempt: int, summary: Summary, started: datetime) -> Row:
    """The row of a complete run."""
    numbers = asdict(summary)
    del numbers["status"]
    is_gpu = not summary.device.startswith("cpu")
    numbers["gpu_seconds"] = summary.seconds * summary.world_size if is_gpu else 0.0
    numbers["class_names"] = spec_of(from_json(trial.config_json).data).class_names
    return Row(**_facts(trial, attempt, started), **numbers, status="done")


def failed_row(
    trial: Trial, attempt: int, error: tuple[Failure, str], started: datetime | None = None
) -> Row:
    """The row of an attempt that nothing follows.

    Args:
        trial: the cell.
        attempt: number of the attempt.
        error: its class and its text.
        started: when it began, if known.
    """
    failure, text = error
    return Row(
        **_facts(trial, attempt, started or datetime.now(UTC)),
        status="failed",
        error_class=failure.value,
        error_text=text,
        world_size=trial.ranks,
    )


def _facts(trial: Trial, attempt: int, started: datetime) -> dict[str, Any]:
    """Columns that every row has."""
    facts = asdict(provenance())
    runs_copy = bool(trial.code) and Path(trial.code).resolve() == CHECKOUT
    # The launch knows of which commit its copy is. A node that does not see the copy runs its own
    # checkout, and says which that is.
    if runs_copy or (trial.git_commit and not trial.code):
        facts |= {"git_commit": trial.git_commit, "git_dirty": trial.git_dirty}
    if trial.backend != "ray":
        facts["ray"] = None
    return {
        **asdict(Cell.parse(trial.key)),
        **facts,
        "attempt": attempt,
        "fingerprint": trial.fingerprint,
        "config_json": trial.config_json,
        "started": started,
        "finished": datetime.now(UTC),
        "backend": trial.backend,
    }
