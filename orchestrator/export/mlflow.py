"""Runs for MLflow, written by its own client into a file store.

MLflow 3.17 reads the folder with ``MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri
<folder>``; ``mlflow migrate-filestore --source <folder> --target sqlite:///mlflow.db`` takes it
over into a database. One experiment per grid, one run per row. Nothing is sent anywhere.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.export.runs import ExportedRun
from orchestrator.results.row import AXES, Row

_EXTRA = "pip install 'mlflow-skinny>=3.17'"  # the same as the extra `mlflow` of pyproject.toml

_BATCH = 100  # of parameters, as many as MLflow takes in one call; of metrics it takes more
_SCORES = ("best_miou_percent", "last_miou_percent", "seconds", "gpu_seconds")
# A file store needs leave since 3.17; usage statistics would go to a server of MLflow's makers.
_ENVIRONMENT = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


def export_mlflow(runs: Iterable[ExportedRun], folder: Path, *, experiment: str) -> list[Path]:
    """Write an experiment with one run per row; the one an earlier export wrote is replaced.

    Args:
        runs: what to write.
        folder: of the file store; other experiments in it stay.
        experiment: its name, such as the grid's.

    Returns:
        The folders of the runs.

    Raises:
        ValueError: MLflow is not installed.
    """
    with _offline():
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ValueError(
                f"Export to MLflow needs mlflow-skinny, which is not installed here: {_EXTRA}"
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(tracking_uri=folder.absolute().as_uri())
        earlier = client.get_experiment_by_name(experiment)
        if earlier is not None:
            # Not by the client: a deleted experiment of MLflow goes to a trash and keeps its name.
            shutil.rmtree(folder / earlier.experiment_id)
        number = client.create_experiment(experiment)
        return [folder / number / _write(client, run, number) for run in runs]


def _write(client: Any, run: ExportedRun, experiment: str) -> str:
    """Write one run; returns its id."""
    from mlflow.entities import Metric, Param

    row = run.row
    started, finished = _milliseconds(row)
    name: str = client.create_run(
        experiment, start_time=started, run_name=row.key, tags=_tags(row)
    ).info.run_id
    for params in _batches([Param(*param) for param in _params(row)]):
        client.log_batch(name, params=params)
    measured = [Metric(key, value, finished, epoch) for key, epoch, value in _metrics(run)]
    for metrics in _batches(measured):
        client.log_batch(name, metrics=metrics)
    status = "FINISHED" if row.status == "done" else "FAILED"
    client.set_terminated(name, status, end_time=finished)
    return name


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _params(row: Row) -> Iterator[tuple[str, str]]:
    """Axes of the cell, and every field of the configuration under its dotted name."""
    axes = {axis: str(getattr(row, axis)) for axis in AXES}
    yield from (axes | dict(_flat(json.loads(row.config_json)))).items()


def _flat(plain: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(plain, dict):
        for name, inner in plain.items():
            if isinstance(inner, dict):
                yield from _flat(inner, f"{prefix}{name}.")
            elif prefix:  # top-level plain fields are axes already
                yield f"{prefix}{name}", inner if isinstance(inner, str) else json.dumps(inner)


def _tags(row: Row) -> dict[str, str]:
    tags = {
        "mlflow.source.git.commit": row.git_commit or "",
        "fingerprint": row.fingerprint,
        "attempt": str(row.attempt),
        "device": row.device or "",
        "host": row.host or "",
    }
    return {name: value for name, value in tags.items() if value}


def _metrics(run: ExportedRun) -> Iterator[tuple[str, int, float]]:
    """Name, epoch and value of everything that was measured; epoch 0 for the whole run."""
    yield from run.values()
    for name in _SCORES:
        value = getattr(run.row, name)
        if value is not None:
            yield name, 0, value


def _milliseconds(row: Row) -> tuple[int, int]:
    return int(row.started.timestamp() * 1000), int(row.finished.timestamp() * 1000)


@contextmanager
def _offline() -> Iterator[None]:
    """Set the variables with which MLflow writes files and sends nothing."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
