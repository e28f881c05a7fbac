"""The report of a grid: one HTML file that loads nothing from outside, and pictures beside it."""

from pathlib import Path

from datasets.files import atomic_write
from datasets.progress import Say, silent
from orchestrator.planning.plan import Plan
from orchestrator.report.data import ReportData, gather
from orchestrator.report.html import report_environment
from orchestrator.report.pictures import PictureGrid
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


def report(plan: Plan, epoch: Epoch = "best", say: Say = silent) -> list[Path]:
    """Write ``reports/<grid>.html`` below what is printed of the root, whole or not at all.

    The pictures of the page are also written as ``reports/<grid>-<table>.png``.

    Args:
        plan: the grid with its states.
        epoch: whose mIoU the tables print.
        say: given a few words about each part that takes long.

    Returns:
        The files, the page last.

    Raises:
        ResultsError: a file among the results is broken.
        OSError: the folder cannot be written.
    """
    folder, name, paths = plan.root.printed / "reports", plan.grid.name, list[Path]()
    folder.mkdir(parents=True, exist_ok=True)
    say("tables")
    data = gather(plan, epoch, say)
    for table, grid in data.pictures.items():
        if isinstance(grid, PictureGrid):
            from orchestrator.report.picture_file import picture_png

            paths.append(folder / f"{name}-{table}.png")
            atomic_write(paths[-1], picture_png(grid), durable=True)
    say("the page")
    paths.append(folder / f"{name}.html")
    atomic_write(paths[-1], page(data), durable=True)
    return paths
