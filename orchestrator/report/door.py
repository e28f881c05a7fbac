"""Writes the report of a grid."""

from pathlib import Path

from orchestrator.places import Places
from orchestrator.plan import Plan
from orchestrator.report.material import gather
from orchestrator.report.page import page
from orchestrator.tables.filled import Epoch
from orchestrator.tables.write import replace_file


def report(plan: Plan, epoch: Epoch = "best") -> Path:
    """Write ``reports/<grid>.html`` below what is printed of the root, whole or not at all.

    Args:
        plan: the grid with its states.
        epoch: whose mIoU the tables print.

    Returns:
        The file.

    Raises:
        ResultsError: a file among the results is broken.
        OSError: the place cannot be written.
    """
    path = Places.at(plan.root).printed / "reports" / f"{plan.grid.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, page(gather(plan, epoch)))
    return path
