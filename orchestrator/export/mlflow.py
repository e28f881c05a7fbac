"""The files of an MLflow file store, written without MLflow.

``mlflow migrate-filestore --source <folder> --target sqlite:///mlflow.db`` takes them over; MLflow
3.17 reads the folder itself only with MLFLOW_ALLOW_FILE_STORE=true. One experiment per grid, one
run per row; ids are made of names, so an export replaces the earlier one.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from orchestrator.export.runs import ExportedRun
from orchestrator.results.store import Row

_FINISHED, _FAILED = 3, 4  # of mlflow.entities.RunStatus
_SOURCE_LOCAL = 4
_AXES = ("recipe", "split", "backbone", "crop", "method", "loss", "seed")


def export_mlflow(runs: Iterable[ExportedRun], folder: Path, *, experiment: str) -> list[Path]:
    """Write an experiment with one run per row.

    Args:
        runs: what to write.
        folder: of the file store; other experiments in it stay.
        experiment: its name, such as the grid's.

    Returns:
        The folders of the runs.
    """
    number = str(int(hashlib.sha256(experiment.encode()).hexdigest()[:15], 16))
    place = folder / number
    shutil.rmtree(place, ignore_errors=True)
    listed = list(runs)
    moments = [_milliseconds(run.row) for run in listed]
    facts = {
        "artifact_location": place.absolute().as_uri(),
        "creation_time": min((start for start, _ in moments), default=0),
        "experiment_id": number,
        "last_update_time": max((end for _, end in moments), default=0),
        "lifecycle_stage": "active",
        "name": experiment,
    }
    _write(place / "meta.yaml", yaml.safe_dump(facts))
    return [_run(run, place, number) for run in listed]


def _run(run: ExportedRun, experiment: Path, number: str) -> Path:
    row = run.row
    name = hashlib.sha256(f"{row.key}.a{row.attempt}".encode()).hexdigest()[:32]
    place = experiment / name
    started, finished = _milliseconds(row)
    facts: dict[str, Any] = {
        "artifact_uri": (place / "artifacts").absolute().as_uri(),
        "end_time": finished,
        "entry_point_name": "",
        "experiment_id": number,
        "lifecycle_stage": "active",
        "run_id": name,
        "run_name": row.key,
        "run_uuid": name,
        "source_name": "",
        "source_type": _SOURCE_LOCAL,
        "source_version": "",
        "start_time": started,
        "status": _FINISHED if row.status == "done" else _FAILED,
        "tags": [],
        "user_id": "",
    }
    _write(place / "meta.yaml", yaml.safe_dump(facts))
    (place / "artifacts").mkdir()
    for param, value in _params(row):
        _write(place / "params" / param, value)
    for tag, value in _tags(row).items():
        _write(place / "tags" / tag, value)
    for metric, lines in _metrics(run, finished).items():
        _write(place / "metrics" / metric, "".join(lines))
    return place


def _params(row: Row) -> Iterator[tuple[str, str]]:
    """Axes of the cell, and every field of the configuration under its dotted name."""
    found = {axis: str(getattr(row, axis)) for axis in _AXES}
    yield from (found | dict(_flat(json.loads(row.config_json)))).items()


def _flat(plain: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(plain, dict):
        for name, inner in plain.items():
            if isinstance(inner, dict):
                yield from _flat(inner, f"{prefix}{name}.")
            elif prefix:  # top-level plain fields are axes already
                yield f"{prefix}{name}", inner if isinstance(inner, str) else json.dumps(inner)


def _tags(row: Row) -> dict[str, str]:
    tags = {
        "mlflow.runName": row.key,
        "mlflow.source.git.commit": row.git_commit or "",
        "fingerprint": row.fingerprint,
        "attempt": str(row.attempt),
        "device": row.device or "",
        "host": row.host or "",
    }
    return {name: value for name, value in tags.items() if value}


def _metrics(run: ExportedRun, moment: int) -> dict[str, list[str]]:
    """Lines of ``milliseconds value epoch`` by metric."""
    found: dict[str, list[str]] = {}
    for name, epoch, value in run.values():
        found.setdefault(name, []).append(f"{moment} {value!r} {epoch}\n")
    for name in ("best_miou_percent", "last_miou_percent", "seconds", "gpu_seconds"):
        value = getattr(run.row, name)
        if value is not None:
            found[name] = [f"{moment} {value!r} 0\n"]
    return found


def _milliseconds(row: Row) -> tuple[int, int]:
    return int(row.started.timestamp() * 1000), int(row.finished.timestamp() * 1000)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
