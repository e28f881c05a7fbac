"""The charts of a report as files for a paper: ``<root>/figures/<grid>/<chart>.pdf|svg|png``."""

from pathlib import Path
from typing import get_args

from datasets.files import atomic_write
from orchestrator.planning.plan import Plan
from orchestrator.report.charts import charts
from orchestrator.report.data import gather
from orchestrator.report.plots import FigureFormat, file_content
from orchestrator.tables.filled import Epoch


def write_figures(plan: Plan, epoch: Epoch = "best") -> list[Path]:
    """Draw every chart of a grid's report in three formats.

    Args:
        plan: the grid with its states.
        epoch: whose IoU the charts by class show.

    Returns:
        The files; none where no run has logged an epoch yet.

    Raises:
        ResultsError: a file among the results is broken.
        OSError: the folder cannot be written.
    """
    folder = plan.root.printed / "figures" / plan.grid.name
    paths = []
    for chart in charts(gather(plan, epoch)):
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in get_args(FigureFormat):
            paths.append(folder / f"{chart.name}.{suffix}")
            atomic_write(paths[-1], file_content(chart, suffix))
    return paths
