"""Runs for Weights & Biases, written offline: ``wandb sync <folder>/wandb/offline-run-*``.

Nothing is sent, and no account is looked for. One run per row; ids are made of key and attempt, so
that syncing a second export updates the runs of the first.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.export.runs import ExportedRun
from orchestrator.results.row import AXES, SCHEMA, Row

_EXTRA = "pip install 'wandb>=0.28'"  # the same as the extra `wandb` of pyproject.toml

# Columns of single values that are not in the configuration: numbers of training go to the summary
# of the run in W&B, all others into its configuration, under `run`.
_SCALARS = tuple(
    column
    for column in SCHEMA
    if column.type in (pa.string(), pa.bool_(), pa.int32(), pa.int64(), pa.float64())
    and column.name not in (*AXES, "config_json", "error_text", "schema_version")
)
_FACTS = tuple(
    column.name
    for column in _SCALARS
    if column.type in (pa.string(), pa.bool_()) or column.name in ("attempt", "world_size")
)
_SCORES = tuple(column.name for column in _SCALARS if column.name not in _FACTS)


def export_wandb(runs: Iterable[ExportedRun], folder: Path, *, project: str) -> list[Path]:
    """Write one offline run per row; what an earlier export wrote there is replaced.

    Args:
        runs: what to write.
        folder: that gets the folder ``wandb``.
        project: its name, such as the grid's.

    Returns:
        The folders of the runs.

    Raises:
        ValueError: wandb is not installed.
    """
    with _unreported():
        try:
            import wandb
        except ImportError as error:
            raise ValueError(
                f"Export to Weights & Biases needs wandb, which is not installed here: {_EXTRA}"
            ) from error
        shutil.rmtree(folder / "wandb", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(wandb, run, folder, project) for run in runs]


def _write(wandb: Any, run: ExportedRun, folder: Path, project: str) -> Path:
    """Write one run, its epochs as steps."""
    row = run.row
    writer = wandb.init(
        project=project,
        id=hashlib.sha256(f"{row.key}.a{row.attempt}".encode()).hexdigest()[:16],
        name=row.key,
        group=row.group,  # repetitions of one experiment
        job_type=row.method,
        config=json.loads(row.config_json) | {"run": {name: getattr(row, name) for name in _FACTS}},
        settings=_settings(wandb, folder),
    )
    epochs: dict[int, dict[str, float]] = {}
    for name, epoch, value in run.values():
        epochs.setdefault(epoch, {"epoch": epoch})[name] = value
    for epoch, values in sorted(epochs.items()):
        writer.log(values, step=epoch)
    writer.summary.update(_summary(row))
    run_folder = Path(writer.dir).parent
    writer.finish(exit_code=0 if row.status == "done" else 1)
    return run_folder


def _settings(wandb: Any, folder: Path) -> Any:
    """Offline whatever the environment says, and nothing about the machine that exports."""
    return wandb.Settings(
        mode="offline",
        root_dir=str(folder),
        console="off",
        silent=True,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )


def _summary(row: Row) -> dict[str, Any]:
    """Scores, and the IoU of every class at the best epoch."""
    summary = {name: getattr(row, name) for name in _SCORES}
    for name, value in zip(row.class_names, row.best_iou_percent, strict=False):
        summary[f"best_iou_percent/{name}"] = value
    return {name: value for name, value in summary.items() if value is not None}


@contextmanager
def _unreported() -> Iterator[None]:
    """Switch off error reports to the makers of wandb, which reads this variable at import."""
    before = os.environ.get("WANDB_ERROR_REPORTING")
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_ERROR_REPORTING"]
        else:
            os.environ["WANDB_ERROR_REPORTING"] = before
