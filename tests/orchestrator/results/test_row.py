"""The columns on disk, typed from finished results, and what makes a row of them."""

from datetime import timedelta

import pyarrow.parquet as pq

from orchestrator.failures import Failure
from orchestrator.results.row import SCHEMA, Attempt, Provenance, Row, arrow_of
from orchestrator.results.store import publish
from orchestrator.storage.local_root import LocalRoot
from orchestrator.trial import Trial
from sweeps.cell import Cell
from tests.support.result_rows import START, row_of
from trainer.config.compose import compose
from trainer.config.fingerprint import config_json
from trainer.run_log import Summary

CELL = Cell("synthetic", "1of8", "resnet14_w8", 64, "unimatch_star", "kl")
# Never edited, only added to: results of years are read by these names and types.
COLUMNS = """
recipe: string not null
split: string not null
backbone: string not null
crop: int32 not null
method: string not null
loss: string not null
seed: int64 not null
key: string not null
attempt: int32 not null
status: string not null
fingerprint: string not null
config_json: string not null
started: timestamp[us, tz=UTC] not null
finished: timestamp[us, tz=UTC] not null
error_class: string
error_text: string
best_miou_percent: double
best_epoch: int32
last_miou_percent: double
last_epoch: int32
best_iou_percent: list<item: double>
last_iou_percent: list<item: double>
class_names: list<item: string>
best_confusion: list<item: list<item: int64>>
last_confusion: list<item: list<item: int64>>
epochs: int32
steps: int64
seconds: double
gpu_seconds: double
peak_memory_bytes: int64
weights_sha256: string
best_weights_sha256: string
data_fingerprint: string
split_checksum: string
pretrained_sha256: string
git_commit: string
git_dirty: bool
python: string
torch: string
cuda: string
ray: string
device: string
world_size: int32
host: string
backend: string
settings_sha256: string
absent_classes: list<item: string>
absent_rule: string
track: string
schema_version: int32 not null
"""
CODE = Provenance("0123abcd", False, "3.11.2", "2.13.0", None, None, "node-1")
TRIAL = Trial(CELL.key, '{"recipe":"synthetic","seed":12345}', "f" * 64, "out", "inline", "stop")
SUMMARY = Summary(
    status="done",
    epochs=2,
    steps=6,
    best_miou_percent=45.5,
    best_epoch=1,
    last_miou_percent=44.0,
    last_epoch=2,
    best_iou_percent=(50.0, None),
    last_iou_percent=(49.0, None),
    best_confusion=((5, 1), (0, 0)),
    last_confusion=((4, 2), (0, 0)),
    seconds=100.0,
    peak_memory_bytes=7,
    weights_sha256="a" * 64,
    best_weights_sha256="b" * 64,
    data_fingerprint="d",
    split_checksum="s",
    pretrained_sha256=None,
    world_size=2,
    device="NVIDIA H200",
)


def described(schema):
    return [f"{f.name}: {f.type}{'' if f.nullable else ' not null'}" for f in schema]


def test_the_annotations_of_a_row_are_the_columns_on_disk():
    assert described(SCHEMA) == COLUMNS.split("\n")[1:-1]


def test_a_published_file_has_exactly_these_columns(tmp_path):
    path = publish(LocalRoot(tmp_path), row_of(CELL, 50.0))

    assert pq.read_schema(path).equals(SCHEMA)


def test_a_complete_run_becomes_a_row_with_all_numbers_of_its_summary():
    attempt = Attempt(TRIAL, 3, START, CODE)

    row = Row.from_summary(attempt, SUMMARY, ("sky", "sea"))

    numbers = {name: value for name, value in vars(SUMMARY).items() if name != "status"}
    assert {name: getattr(row, name) for name in numbers} == numbers
    assert (row.cell, row.attempt, row.status) == (CELL, 3, "done")
    assert (row.class_names, row.gpu_seconds) == (("sky", "sea"), 200.0)
    assert (row.git_commit, row.host, row.backend) == ("0123abcd", "node-1", "inline")
    assert row.finished - row.started > timedelta(0)


def test_a_failed_attempt_becomes_a_row_with_its_error():
    row = Row.from_failure(Attempt(TRIAL, 1, START, CODE), Failure.diverged, "NaN at step 7")

    assert (row.status, row.error_class, row.error_text) == ("failed", "diverged", "NaN at step 7")
    assert row.best_miou_percent is None


def test_a_row_says_on_which_track_it_ran():
    words = ["method=cps", "recipe=voc", "model=resnet50"]
    texts = [config_json(compose([*words, f"track={track}"])) for track in ("common", "released")]

    tracks = [arrow_of(row_of(CELL, 50.0, config_json=text))["track"].to_pylist() for text in texts]

    assert tracks == [["common"], ["released"]]


def test_what_follows_from_other_columns_is_stored_as_well():
    row = row_of(CELL, 50.0)

    table = arrow_of(row)

    assert table.schema.equals(SCHEMA)
    assert table["key"].to_pylist() == [CELL.key]
    assert table["settings_sha256"].to_pylist() == [row.settings_sha256]
    assert len(row.settings_sha256) == 64
