"""Curves for TensorBoard: ``tensorboard --logdir <folder>``."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from orchestrator.export.runs import ExportedRun


def export_tensorboard(runs: Iterable[ExportedRun], folder: Path) -> list[Path]:
    """Write one folder of events per run; what an earlier export wrote there is replaced.

    Returns:
        The folders.

    Raises:
        ValueError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "Export to TensorBoard needs tensorboardX: pip install tensorboardX (ray[tune] brings "
            "it along)."
        ) from error
    paths = []
    for run in runs:
        run_folder = folder / run.row.key
        shutil.rmtree(run_folder, ignore_errors=True)
        moment = run.row.finished.timestamp()
        with SummaryWriter(str(run_folder)) as writer:
            writer.add_text("configuration", f"    {run.row.config_json}", 0, moment)
            for name, epoch, value in run.values():
                writer.add_scalar(name, value, epoch, walltime=moment)
        paths.append(run_folder)
    return paths
