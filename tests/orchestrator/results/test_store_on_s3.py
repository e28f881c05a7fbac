"""Rows and histories on a real S3 server: many writers, every reader, faults and kills."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import duckdb
import fsspec
import pandas
import polars
import pyarrow.dataset
import pytest

from orchestrator.results.compaction import compact
from orchestrator.results.history import publish_history, read_history
from orchestrator.results.query import query
from orchestrator.results.store import cell_rows, counted_rows, publish, read_rows
from orchestrator.storage.open import open_root
from orchestrator.storage.root import Root
from sweeps.cell import Cell
from tests.support.result_rows import row_of
from tests.support.s3.ceph import environment
from tests.support.s3.session import Store

CHECKOUT = Path(__file__).resolve().parents[3]
CELL = Cell("synthetic", "1of8", "resnet14_w8", 64, "unimatch_star", "kl")
WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from orchestrator.results.history import publish_history
from orchestrator.results.store import publish
from orchestrator.storage.open import open_root
from tests.orchestrator.results.test_store_on_s3 import CELL
from tests.support.result_rows import row_of
root, lines, first = open_root(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for seed in range(first, first + 12):
    cell = replace(CELL, seed=seed)
    publish_history(root, cell.key, 1, lines)
    publish(root, row_of(cell, 40.0 + seed, best_confusion=((seed, 1), (0, 2))))
"""
COMPACT = """
import sys
from orchestrator.results.compaction import compact
from orchestrator.storage.open import open_root
compact(open_root(sys.argv[1]))
"""


@pytest.fixture
def root(store: Store) -> Root:
    return open_root(store.url)


@pytest.fixture
def lines(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "epoch": 1, "miou_percent": 40.5}\n')
    return tmp_path


def process(store, code, *words):
    command = [sys.executable, "-c", code, store.url, *map(str, words)]
    return subprocess.Popen(command, cwd=CHECKOUT, env=os.environ | environment(store.proxy.port))


def fill(root, lines, count):
    for seed in range(count):
        cell = replace(CELL, seed=seed)
        publish_history(root, cell.key, 1, lines)
        publish(root, row_of(cell, 40.0 + seed))


def seeds(root):
    return [row.seed for row in read_rows(root)]


def test_nothing_is_lost_between_writers_compactions_and_readers(store, root, lines):
    writers = [process(store, WRITER, lines, first) for first in (0, 12)]
    while any(writer.poll() is None for writer in writers):
        before = read_rows(root)
        compact(root)
        assert {row.key for row in before} <= {row.key for row in read_rows(root)}

    assert [writer.returncode for writer in writers] == [0, 0]
    assert sorted(seeds(root)) == list(range(24))
    assert read_history(root).num_rows == 24
    compact(root)
    assert len(root.results("rows").names()) == 1
    sql = "SELECT sum(pixels) AS n FROM confusion WHERE epoch = 'best' AND seed = 20"
    assert query(root, sql, cells=[CELL]).to_pylist() == [{"n": 23}]
    assert len(counted_rows(root, [CELL], {})) == 24


def test_rows_in_a_bucket_are_published_and_read_as_in_a_folder(store, root):
    assert read_rows(root) == []
    first, second = row_of(CELL, 50.0), row_of(CELL, 51.0, attempt=2)

    address = publish(root, first)
    publish(root, second)

    assert address == f"{store.url}/results/rows/{CELL.key}.a0001.parquet"
    assert read_rows(root) == [first, second]


def test_compactions_at_once_lose_and_double_nothing(root, lines):
    fill(root, lines, 12)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: compact(root), range(8)))

    assert sorted(seeds(root)) == list(range(12))


def test_every_reader_takes_the_folder_as_it_lies(store, root, lines):
    fill(root, lines, 3)
    compact(root)
    publish(root, row_of(replace(CELL, seed=7), 47.0))  # one file beside the compacted one
    place = f"{store.url}/results/rows"
    given = environment(store.proxy.port)
    options = {
        "endpoint_url": given["AWS_ENDPOINT_URL"],
        "key": given["AWS_ACCESS_KEY_ID"],
        "secret": given["AWS_SECRET_ACCESS_KEY"],
    }
    files = fsspec.filesystem("s3", **options)
    connection = duckdb.connect()
    connection.register_filesystem(files)
    found = {
        "pandas": pandas.read_parquet(place, storage_options=options)["best_miou_percent"],
        "pyarrow": pyarrow.dataset.dataset(place.removeprefix("s3://"), filesystem=files)
        .to_table()["best_miou_percent"]
        .to_pylist(),
        "polars": polars.read_parquet(
            f"{place}/*.parquet",
            storage_options={**given, "aws_allow_http": "true"},
            missing_columns="insert",
        )["best_miou_percent"],
        "duckdb": [
            score
            for (score,) in connection.sql(
                f"SELECT best_miou_percent FROM read_parquet('{place}/*.parquet')"
            ).fetchall()
        ],
    }
    connection.close()

    for name, scores in found.items():
        assert sorted(scores) == [40.0, 41.0, 42.0, 47.0], name


def test_lost_answers_and_a_slow_server_neither_lose_nor_double_a_row(store, root, lines):
    store.proxy.harm("PUT .*results/rows", "lose_answer", times=1)
    store.proxy.harm("PUT .*results/history", "status", times=2, code=503)
    fill(root, lines, 2)
    store.proxy.harm("GET .*parquet", "status", times=2, code=503)
    store.proxy.harm("GET .*list-type", "status", times=1, code=500)

    assert seeds(root) == [0, 1]
    assert read_history(root).num_rows == 2


def test_a_compaction_that_is_killed_before_it_removes_leaves_each_row_once(store, root, lines):
    fill(root, lines, 4)
    store.proxy.harm("(DELETE|POST) ", "stall")
    compaction = process(store, COMPACT)
    while not any(name.startswith("compacted") for name in root.results("rows").names()):
        assert compaction.poll() is None
        time.sleep(0.1)
    compaction.kill()
    compaction.wait()
    store.proxy.heal()

    assert len(root.results("rows").names()) == 5
    assert seeds(root) == [0, 1, 2, 3]
    assert [row.seed for row in cell_rows(root, replace(CELL, seed=2).key)] == [2]
    compact(root)
    assert len(root.results("rows").names()) == 1
    assert seeds(root) == [0, 1, 2, 3]
