"""Exports the counted runs of a grid in a format by name."""

from pathlib import Path
from typing import Literal, get_args

from orchestrator.export.csv import export_csv
from orchestrator.export.mlflow import export_mlflow
from orchestrator.export.runs import exported_runs
from orchestrator.export.tensorboard import export_tensorboard
from orchestrator.export.wandb import export_wandb
from orchestrator.storage.root import Root
from sweeps.grid import Grid

ExportKind = Literal["csv", "tensorboard", "mlflow", "wandb"]
EXPORT_KINDS: tuple[ExportKind, ...] = get_args(ExportKind)


def export(grid: Grid, root: Root, kind: ExportKind) -> Path:
    """Write the counted runs of a grid, at any seed, for another tool.

    Args:
        grid: whose cells.
        root: of the results; the export lies in ``exports/<grid>/<kind>`` below what is printed.
        kind: which tool.

    Returns:
        The folder.

    Raises:
        ValueError: the tool's package is missing, or a result is broken.
    """
    folder = root.printed / "exports" / grid.name / kind
    runs = exported_runs(root, grid.cells)
    if kind == "csv":
        export_csv(runs, folder)
    elif kind == "tensorboard":
        export_tensorboard(runs, folder)
    elif kind == "wandb":
        export_wandb(runs, folder, project=grid.name)
    else:
        export_mlflow(runs, folder, experiment=grid.name)
    return folder
