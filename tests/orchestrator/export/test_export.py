"""Exports: what other tools read is what the results say."""

import csv
import json
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from orchestrator.__main__ import main
from orchestrator.export.formats import EXPORT_KINDS, export
from orchestrator.planning.plan import make_plan
from orchestrator.results.history import publish_history
from orchestrator.results.store import publish
from orchestrator.storage.local_root import LocalRoot
from sweeps.grid import load_grid
from tests.support.result_rows import row_of

ROOT = Path(__file__).resolve().parents[3]
CONFIG = '{"data":{"crop":64},"optim":{"lr":0.01},"recipe":"synthetic","seed":12345}'


@pytest.fixture
def root(tmp_path):
    first, second, other = load_grid("demo").cells[:3]
    lines = [
        {"step": 3, "epoch": 1.0, "loss": 2.0, "mask_ratio": 0.25},
        {"step": 3, "epoch": 1, "miou_percent": 40.5},
        {"step": 6, "epoch": 2, "miou_percent": 45.25},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    root = LocalRoot(tmp_path / "out")
    publish_history(root, first.key, 1, tmp_path)
    publish(root, row_of(first, 45.25, config_json=CONFIG, class_names=("a", "b")))
    publish(root, row_of(replace(first, seed=1), 44.0, config_json=CONFIG))
    publish(root, row_of(second, error_class="diverged", config_json=CONFIG))
    publish(root, row_of(replace(other, crop=999), 1.0, config_json=CONFIG))
    return root


def events(folder):
    """Records of an event file: length, its checksum, content, its checksum."""
    (path,) = folder.iterdir()
    content, read = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        read.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return read


def test_csv_has_a_line_per_run_and_per_epoch_of_the_grid_only(root):
    folder = export(make_plan("demo", root), "csv")

    with (folder / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (folder / "history.csv").open() as file:
        epochs = list(csv.DictReader(file))
    assert sorted(row["best_miou_percent"] for row in rows) == ["", "44.0", "45.25"]
    assert {row["class_names"] for row in rows} == {"", "a;b"}
    assert [(line["epoch"], line["miou_percent"]) for line in epochs] == [
        ("1", "40.5"),
        ("2", "45.25"),
    ]


def test_tensorboard_gets_the_curves_and_the_configuration(root):
    for _ in range(2):  # a second export replaces the first
        folder = export(make_plan("demo", root), "tensorboard")

    key = load_grid("demo").cells[0].key
    values = [
        (value.tag, event.step, value.simple_value)
        for event in events(folder / key)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]
    assert ("miou_percent", 2, 45.25) in values
    assert ("mask_ratio", 1, 0.25) in values
    assert ("loss_total", 1, 2.0) in values
    assert len(list(folder.iterdir())) == 3


def test_mlflows_own_reader_finds_runs_parameters_metrics_and_tags(root, monkeypatch):
    for _ in range(2):  # a second export replaces the first
        folder = export(make_plan("demo", root), "mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=folder.as_uri())
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}

    assert experiment.name == "demo"
    assert sorted(run.info.status for run in runs.values()) == ["FAILED", "FINISHED", "FINISHED"]
    run = runs[load_grid("demo").cells[0].key]
    assert (run.data.params["optim.lr"], run.data.params["seed"]) == ("0.01", "12345")
    assert run.data.tags["mlflow.source.git.commit"] == "0123456789abcdef"
    assert (run.data.metrics["best_miou_percent"], run.data.metrics["loss_total"]) == (45.25, 2.0)
    curve = client.get_metric_history(run.info.run_id, "miou_percent")
    assert [(point.step, point.value) for point in curve] == [(1, 40.5), (2, 45.25)]
    assert (run.info.end_time, curve[0].timestamp) == (1767323045000, 1767323045000)


def test_an_export_of_nothing_is_empty(tmp_path):
    for kind in EXPORT_KINDS:
        export(make_plan("demo", LocalRoot(tmp_path)), kind)

    assert (tmp_path / "exports/demo/csv/rows.csv").read_text().count("\n") == 1


def command(root, **environment):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "orchestrator",
            "export",
            "demo",
            "to=wandb",
            f"root={root.address}",
        ],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def records(path):
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    store.open_for_scan(str(path))
    while (content := store.scan_data()) is not None:
        yield Record.FromString(content)
    store.close()


def test_wandbs_own_reader_finds_config_epochs_and_summary_offline(root, monkeypatch):
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    done = command(root, WANDB_MODE="online")  # which must not matter

    assert (done.returncode, done.stderr) == (0, "")
    runs = {}
    for path in Path(done.stdout.strip()).glob("wandb/offline-run-*/run-*.wandb"):
        items = list(records(path))
        (run,) = (record.run for record in items if record.HasField("run"))
        runs[run.display_name] = (run, items)
    first = load_grid("demo").cells[0]
    assert len(runs) == 3
    run, items = runs[first.key]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (run.project, run.run_group) == ("demo", first.key.removesuffix(".s12345"))
    assert config["optim"] == {"lr": 0.01}
    assert config["run"]["fingerprint"] == "f" * 64
    epochs = [
        {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in items
        if record.HasField("history")
    ]
    assert [(line["_step"], line["miou_percent"]) for line in epochs] == [(1, 40.5), (2, 45.25)]
    summary = {
        item.key: json.loads(item.value_json)
        for record in items
        for item in record.summary.update
        if item.key
    }
    assert summary["best_miou_percent"] == 45.25
    failed = runs[load_grid("demo").cells[1].key][1]
    assert [record.exit.exit_code for record in failed if record.HasField("exit")] == [1]


@pytest.mark.parametrize(
    ("kind", "advice"), [("wandb", "'wandb>=0.28'"), ("mlflow", "'mlflow-skinny>=3.17'")]
)
def test_export_without_the_tools_package_says_how_to_install_it(
    root, kind, advice, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, kind, None)  # what an import of it then meets is ImportError

    assert main(["export", "demo", f"to={kind}", f"root={root.address}"]) == 2

    assert f"pip install {advice}" in capsys.readouterr().err


def test_pixel_counts_have_a_csv_of_their_own(tmp_path):
    cell = load_grid("demo").cells[0]
    fields = {"config_json": CONFIG, "class_names": ("a", "b")}
    publish(LocalRoot(tmp_path), row_of(cell, 45.0, best_confusion=((5, 1), (0, 2)), **fields))

    folder = export(make_plan("demo", LocalRoot(tmp_path)), "csv")

    assert (folder / "confusion.csv").read_text().splitlines()[1:] == [
        f"{cell.key},1,best,a,a,5",
        f"{cell.key},1,best,a,b,1",
        f"{cell.key},1,best,b,a,0",
        f"{cell.key},1,best,b,b,2",
    ]
    assert "confusion" not in (folder / "rows.csv").read_text()
