"""Compaction: every row counts once, whatever is written, read or killed meanwhile."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.failures import StaleAttempt
from orchestrator.results.compaction import compact
from orchestrator.results.store import (
    SCHEMA,
    ResultsError,
    cell_rows,
    counted,
    counted_rows,
    publish,
    read_rows,
)
from orchestrator.storage.local_root import LocalRoot
from sweeps.cell import Cell
from tests.support.process_groups import FORKSERVER
from tests.support.result_rows import START, compact_until, publish_all, row_of, rows

ROOT = Path(__file__).resolve().parents[3]
CELL = Cell("synthetic", "1of8", "resnet14_w8", 64, "unimatch_star", "kl")

# A process that compacts a folder and kills itself at a moment that an audit hook of Python sees.
COMPACT = """
import os, signal, sys
from pathlib import Path
from orchestrator.results.compaction import compact
from orchestrator.storage.local_root import LocalRoot

moment, count = {moment!r}
seen = []


def watch(event, arguments):
    if event == moment and "/results/rows/" + {name!r} in str(arguments[0]):
        seen.append(arguments[0])
        if len(seen) == count:
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(watch)
compact(LocalRoot(Path(sys.argv[1])))
"""


def seeds(count, **fields):
    return [row_of(replace(CELL, seed=seed), 50.0 + seed, **fields) for seed in range(count)]


def files(root):
    return sorted(path.name for path in (Path(root) / "results/rows").iterdir())


@given(made=st.lists(rows, min_size=1, max_size=8))
@settings(max_examples=25)
def test_rows_read_the_same_before_and_after(tmp_path_factory, made):
    root = LocalRoot(tmp_path_factory.mktemp("root"))
    for row in sorted(made, key=lambda row: row.attempt):
        publish(root, row)
    before = read_rows(root)

    compact(root)

    assert read_rows(root) == before
    assert sum(name.startswith("compacted-") for name in files(root.folder)) == 1


def test_a_compacted_folder_reads_with_pandas_polars_duckdb_and_pyarrow(tmp_path):
    for row in seeds(5, best_iou_percent=(1.0, None)):
        publish(LocalRoot(tmp_path), row)
    compact(LocalRoot(tmp_path))
    publish(LocalRoot(tmp_path), row_of(replace(CELL, seed=9), 59.0))
    folder = tmp_path / "results/rows"
    means = [50.0, 51.0, 52.0, 53.0, 54.0, 59.0]

    assert sorted(pandas.read_parquet(folder)["best_miou_percent"]) == means
    assert sorted(polars.read_parquet(folder / "*.parquet")["best_miou_percent"]) == means
    found = duckdb.sql(f"select best_miou_percent from '{folder}/*.parquet' order by 1").fetchall()
    assert [value for (value,) in found] == means
    assert pa.dataset.dataset(folder).to_table().schema.equals(SCHEMA)


def test_a_second_compaction_has_nothing_to_do_and_a_third_merges_all(tmp_path):
    for row in seeds(3):
        publish(LocalRoot(tmp_path), row)
    first, _ = compact(LocalRoot(tmp_path))
    again, _ = compact(LocalRoot(tmp_path))
    publish(LocalRoot(tmp_path), row_of(replace(CELL, seed=7), 57.0))
    third, _ = compact(LocalRoot(tmp_path))

    assert (first.merged, again.merged, third.merged) == (3, 0, 2)
    assert third.rows == 4
    assert len(files(tmp_path)) == 1


def test_few_files_are_left_alone_when_asked(tmp_path):
    for row in seeds(3):
        publish(LocalRoot(tmp_path), row)

    assert compact(LocalRoot(tmp_path), at_least=4)[0].merged == 0
    assert len(files(tmp_path)) == 3


def test_publishing_knows_what_is_compacted(tmp_path):
    newer = row_of(CELL, 51.0, attempt=2)
    publish(LocalRoot(tmp_path), newer)
    compact(LocalRoot(tmp_path))

    publish(LocalRoot(tmp_path), replace(newer, host="twice"))
    with pytest.raises(StaleAttempt, match="attempt 2 has already published"):
        publish(LocalRoot(tmp_path), row_of(CELL, 50.0, attempt=1))

    assert read_rows(LocalRoot(tmp_path)) == [newer]


def test_the_rows_of_one_cell_are_found_wherever_they_lie(tmp_path):
    made = [row_of(CELL, attempt=1), row_of(CELL, 51.0, attempt=2)]
    publish(LocalRoot(tmp_path), made[0])
    compact(LocalRoot(tmp_path))
    publish(LocalRoot(tmp_path), made[1])
    publish(LocalRoot(tmp_path), row_of(replace(CELL, seed=1), 40.0))

    assert cell_rows(LocalRoot(tmp_path), CELL.key) == made
    assert cell_rows(LocalRoot(tmp_path), replace(CELL, seed=2).key) == []


def test_a_done_row_replaces_a_failed_one_that_is_compacted(tmp_path):
    publish(LocalRoot(tmp_path), row_of(CELL))
    compact(LocalRoot(tmp_path))

    publish(LocalRoot(tmp_path), row_of(CELL, 50.0))

    assert [row.status for row in read_rows(LocalRoot(tmp_path))] == ["done"]
    compact(LocalRoot(tmp_path))
    assert [row.status for row in read_rows(LocalRoot(tmp_path))] == ["done"]


def test_of_two_copies_of_an_attempt_the_first_to_finish_counts(tmp_path):
    publish(LocalRoot(tmp_path), row_of(CELL, 50.0, finished=START + timedelta(hours=1)))
    compact(LocalRoot(tmp_path))
    kept = files(tmp_path)[0]
    content = (tmp_path / "results/rows" / kept).read_bytes()
    (tmp_path / "results/rows" / kept).unlink()
    publish(LocalRoot(tmp_path), row_of(CELL, 51.0))
    (tmp_path / "results/rows" / kept).write_bytes(content)

    assert [row.best_miou_percent for row in read_rows(LocalRoot(tmp_path))] == [51.0]


@pytest.mark.parametrize(
    ("event", "name", "count", "num_files"),
    [
        # Before the compacted file has its name; after it; after one of the old files is gone.
        ("os.rename", ".compacted", 1, 6),
        ("os.remove", "synthetic", 1, 6),
        ("os.remove", "synthetic", 2, 5),
    ],
)
def test_a_killed_compaction_loses_and_doubles_nothing(tmp_path, event, name, count, num_files):
    made = seeds(5)
    for row in made:
        publish(LocalRoot(tmp_path), row)

    script = COMPACT.format(moment=(event, count), name=name)
    command = [sys.executable, "-c", script, str(tmp_path)]
    killed = subprocess.run(command, cwd=ROOT, check=False)

    assert killed.returncode == -signal.SIGKILL
    assert len(files(tmp_path)) == num_files
    assert read_rows(LocalRoot(tmp_path)) == made
    compact(LocalRoot(tmp_path))
    assert read_rows(LocalRoot(tmp_path)) == made
    assert len(files(tmp_path)) == 1


def test_what_a_killed_compaction_had_begun_to_write_goes_with_the_next(tmp_path):
    for row in seeds(2):
        publish(LocalRoot(tmp_path), row)
    (tmp_path / "results/rows/.compacted-20260101T000000Z-ab.parquet.cd").write_bytes(b"half")

    compact(LocalRoot(tmp_path))

    assert len(files(tmp_path)) == 1


def test_writers_readers_and_compactions_at_once_lose_and_double_nothing(tmp_path):
    root, made = LocalRoot(tmp_path), seeds(40)
    publish(root, made[0])
    ended = tmp_path / "ended"
    writers = [FORKSERVER.Process(target=publish_all, args=(root, made[n::2])) for n in (0, 1)]
    workers = [FORKSERVER.Process(target=compact_until, args=(root, ended)) for _ in range(2)]
    workers += writers
    for worker in workers:
        worker.start()

    seen = [0]
    while any(writer.is_alive() for writer in writers):
        found = read_rows(root)
        assert len({row.key for row in found}) == len(found)
        assert len(found) >= seen[-1]  # what was there once never disappears
        seen.append(len(found))
    ended.touch()
    for worker in workers:
        worker.join()

    assert [worker.exitcode for worker in workers] == [0] * 4
    assert sorted(row.seed for row in read_rows(root)) == list(range(40))


def test_compactions_at_once_lose_and_double_nothing(tmp_path):
    for row in seeds(20):
        publish(LocalRoot(tmp_path), row)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: compact(LocalRoot(tmp_path)), range(8)))

    assert len(read_rows(LocalRoot(tmp_path))) == 20


def test_only_one_process_compacts_a_folder(tmp_path):
    publish(LocalRoot(tmp_path), seeds(1)[0])

    with LocalRoot(tmp_path).results("rows").compaction_lock():
        found, _ = compact(LocalRoot(tmp_path))

    assert found.is_busy
    assert len(files(tmp_path)) == 1


def test_a_broken_file_stops_the_compaction_and_nothing_is_removed(tmp_path):
    for row in seeds(3):
        publish(LocalRoot(tmp_path), row)
    (tmp_path / "results/rows" / files(tmp_path)[0]).write_bytes(b"PAR1")

    with pytest.raises(ResultsError, match="is no readable row"):
        compact(LocalRoot(tmp_path))

    assert len(files(tmp_path)) == 3


def test_a_file_without_a_needed_column_is_named(tmp_path):
    path = Path(publish(LocalRoot(tmp_path), row_of(CELL, 50.0)))
    pq.write_table(pq.read_table(path).drop_columns(["fingerprint"]), path)

    with pytest.raises(ResultsError, match=r"a0001\.parquet has no column fingerprint"):
        read_rows(LocalRoot(tmp_path))


def test_the_rows_of_chosen_cells_are_those_that_count_at_any_seed(tmp_path):
    other = replace(CELL, loss="none")
    made = [*seeds(3), row_of(CELL, attempt=2), row_of(other, 40.0)]
    for row in made:
        publish(LocalRoot(tmp_path), row)

    found = counted_rows(LocalRoot(tmp_path), [CELL], {}, per_class=True)

    every = counted(read_rows(LocalRoot(tmp_path)), {})
    assert found == [row for key, row in sorted(every.items()) if row.cell.loss == "kl"]


def test_the_time_of_a_kill_does_not_matter(tmp_path):
    """Kill compactions at moments of the clock, while a writer goes on."""
    made = seeds(30)
    for number, row in enumerate(made):
        publish(LocalRoot(tmp_path), row)
        if number % 6 == 5:
            command = [sys.executable, "-c", COMPACT.format(moment=("", 0), name=""), str(tmp_path)]
            process = subprocess.Popen(command, cwd=ROOT)
            time.sleep(0.25 + 0.05 * number / 6)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert sorted(row.seed for row in read_rows(LocalRoot(tmp_path))) == list(
                range(number + 1)
            )
