"""Exports the counted runs of a grid in a format by name."""

import re
from pathlib import Path
from typing import Literal, get_args

from orchestrator.export.csv import export_csv
from orchestrator.export.mlflow import export_mlflow
from orchestrator.export.runs import exported_runs
from orchestrator.export.tensorboard import export_tensorboard
from orchestrator.export.wandb import export_wandb
from orchestrator.planning.plan import Plan

ExportKind = Literal["csv", "tensorboard", "mlflow", "wandb"]
# W&B refuses some signs in a name, and MLflow's queries read others as their own.
_REFUSED = re.compile(r"[^\w .()+=@-]")
_LONGEST_NAME = 128  # of a project in W&B

EXPORT_KINDS: tuple[ExportKind, ...] = get_args(ExportKind)


def export(plan: Plan, kind: ExportKind) -> Path:
    """Write the counted runs of a grid, at any seed, for another tool.

    MLflow and W&B know them by the grid's name, with `-` for signs that they do not take.

    Args:
        plan: the grid with its root; the export lies in ``exports/<grid>/<kind>`` below what is
            printed.
        kind: which tool.

    Returns:
        The folder.

    Raises:
        ValueError: the tool's package is missing, or a result is broken.
    """
    grid = plan.grid
    name = _REFUSED.sub("-", grid.name)[:_LONGEST_NAME]
    folder = plan.root.printed / "exports" / grid.name / kind
    runs = exported_runs(plan.root, grid.cells, plan.today)
    if kind == "csv":
        export_csv(runs, folder)
    elif kind == "tensorboard":
        export_tensorboard(runs, folder)
    elif kind == "wandb":
        export_wandb(runs, folder, project=name)
    else:
        export_mlflow(runs, folder, experiment=name)
    return folder
