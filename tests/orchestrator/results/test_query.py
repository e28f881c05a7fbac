"""History of epochs, and questions in SQL."""

import json
from dataclasses import replace

import pandas
import polars
import pytest

from orchestrator.results.compaction import compact
from orchestrator.results.history import history_of, publish_history, read_history
from orchestrator.results.query import query
from orchestrator.results.store import publish
from orchestrator.storage.local_root import LocalRoot
from sweeps.cell import Cell
from tests.support.result_rows import row_of

CELL = Cell("synthetic", "1of8", "resnet14_w8", 64, "unimatch_star", "kl")
LINES = [
    {"step": 1, "epoch": 0.5, "lr": 0.2, "loss": 3.0, "mask_ratio": 0.0, "loss_cross": 2.0},
    {"step": 2, "epoch": 1.0, "lr": 0.1, "loss": 1.0, "mask_ratio": 0.5, "loss_cross": 4.0},
    {"step": 2, "epoch": 1, "miou_percent": 40.0, "iou_percent": [30.0, None]},
    {"step": 4, "epoch": 2.0, "lr": 0.0, "loss": 0.5, "mask_ratio": 1.0},
    {"step": 4, "epoch": 2, "miou_percent": 45.0, "iou_percent": [35.0, None]},
]


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lines = "".join(json.dumps(line) + "\n" for line in LINES)
    (folder / "metrics.jsonl").write_text(lines + '{"step": 5, "epo')
    return folder


@pytest.fixture
def root(tmp_path, run_folder):
    root = LocalRoot(tmp_path / "out")
    for attempt, row in enumerate((row_of(CELL), row_of(CELL, 45.0, attempt=2)), start=1):
        publish_history(root, CELL.key, attempt, run_folder)
        publish(root, row)
    other = replace(CELL, loss="none", seed=3)
    publish_history(root, other.key, 1, run_folder)
    publish(root, row_of(other, 44.0))
    return root


def test_an_epoch_has_its_score_and_the_means_of_its_terms():
    first, second = history_of(LINES)

    assert first == {
        "epoch": 1,
        "step": 2,
        "lr": 0.1,
        "loss_total": 2.0,
        "mask_ratio": 0.25,
        "miou_percent": 40.0,
        "iou_percent": [30.0, None],
        "other_terms_json": '{"loss_cross": 3.0}',
    }
    assert (second["epoch"], second["miou_percent"], second["mask_ratio"]) == (2, 45.0, 1.0)


def test_the_history_lies_beside_the_rows_and_reads_with_pandas_and_polars(tmp_path, run_folder):
    place = publish_history(LocalRoot(tmp_path), CELL.key, 1, run_folder)

    folder = tmp_path / "results/history"
    assert place == str(folder / f"{CELL.key}.a0001.parquet")
    assert list(pandas.read_parquet(folder)["miou_percent"]) == [40.0, 45.0]
    assert list(polars.read_parquet(folder / "*.parquet")["epoch"]) == [1, 2]


def test_a_run_that_logged_nothing_has_no_history(tmp_path):
    assert publish_history(LocalRoot(tmp_path), CELL.key, 1, tmp_path) is None
    assert len(read_history(LocalRoot(tmp_path))) == 0


def test_publishing_a_history_twice_and_compacting_keeps_each_epoch_once(root, run_folder):
    publish_history(root, CELL.key, 2, run_folder)
    before = read_history(root)

    _, history = compact(root)
    publish_history(root, CELL.key, 2, run_folder)

    assert history.merged == 3
    assert read_history(root).equals(before)
    assert read_history(root)["epoch"].to_pylist() == [1, 2] * 3


def test_rows_are_all_attempts_and_counted_are_those_that_tables_print(root):
    assert query(root, "select count(*) n from rows").to_pylist() == [{"n": 3}]
    found = query(root, "select key, attempt from counted order by best_miou_percent desc")
    assert found["attempt"].to_pylist() == [2, 1]


def test_history_carries_the_axes_of_its_cell(root):
    sql = "select loss, seed, max(miou_percent) best from history where attempt = 1 group by all"
    assert query(root, f"{sql} order by loss").to_pylist() == [
        {"loss": "kl", "seed": 12345, "best": 45.0},
        {"loss": "none", "seed": 3, "best": 45.0},
    ]


def test_only_the_cells_asked_for_are_in_the_views(root):
    chosen = [replace(CELL, loss="none")]

    assert query(root, "select distinct loss from rows", cells=chosen).to_pylist() == [
        {"loss": "none"}
    ]
    assert len(query(root, "select * from history", cells=chosen)) == 2


def test_an_empty_root_answers_too(tmp_path):
    assert query(LocalRoot(tmp_path), "select * from counted").num_rows == 0


def test_a_question_that_is_not_understood_names_the_views_and_columns(root):
    with pytest.raises(ValueError, match=r"(?s)miou.*Views: rows, counted, history.*best_miou"):
        query(root, "select miou from counted")


def test_the_miou_follows_from_the_stored_pixel_counts(tmp_path):
    confusion = ((50, 10), (4, 36))
    expected = (100 * 50 / 64 + 100 * 36 / 50) / 2
    row = row_of(CELL, expected, class_names=("sky", "road"), best_confusion=confusion)
    publish(LocalRoot(tmp_path), row)
    sql = """
        WITH found AS (FROM confusion WHERE epoch = 'best'),
        occurs AS (SELECT truth_id AS class, sum(pixels) AS n FROM found GROUP BY ALL),
        said AS (SELECT prediction_id AS class, sum(pixels) AS n FROM found GROUP BY ALL),
        hit AS (SELECT truth_id AS class, pixels AS n FROM found WHERE truth_id = prediction_id)
        SELECT avg(100.0 * hit.n / (occurs.n + said.n - hit.n)) AS miou
        FROM hit JOIN occurs USING (class) JOIN said USING (class)
    """

    assert query(LocalRoot(tmp_path), sql).to_pylist() == [
        {"miou": pytest.approx(expected, rel=1e-12)}
    ]
    confused = query(LocalRoot(tmp_path), "SELECT truth, prediction, pixels FROM confusion")
    assert {"truth": "road", "prediction": "sky", "pixels": 4} in confused.to_pylist()


def test_wide_matrices_stay_out_of_the_views_of_rows(root):
    assert not {"best_confusion", "last_confusion"} & set(
        query(root, "SELECT * FROM rows").column_names
    )
    assert query(root, "SELECT count(*) AS n FROM confusion").to_pylist() == [{"n": 0}]
