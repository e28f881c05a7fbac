"""The report of a grid: one HTML file that loads nothing from outside."""

from pathlib import Path

from datasets.files import atomic_write
from orchestrator.planning.plan import Plan
from orchestrator.report.data import ReportData, gather
from orchestrator.report.html import report_environment
from orchestrator.report.sections import SECTIONS
from orchestrator.tables.filled import Epoch


def page(data: ReportData) -> str:
    """The whole page."""
    template = report_environment().get_template("page.html")
    return template.render(
        grid=data.plan.grid,
        root=data.plan.root.address,
        epoch=data.epoch,
        made=data.made,
        sections={title: section(data) for title, section in SECTIONS.items()},
    )


def report(plan: Plan, epoch: Epoch = "best") -> Path:
    """Write ``reports/<grid>.html`` below what is printed of the root, whole or not at all.

    Args:
        plan: the grid with its states.
        epoch: whose mIoU the tables print.

    Returns:
        The file.

    Raises:
        ResultsError: a file among the results is broken.
        OSError: the folder cannot be written.
    """
    path = plan.root.printed / "reports" / f"{plan.grid.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, page(gather(plan, epoch)), durable=True)
    return path
