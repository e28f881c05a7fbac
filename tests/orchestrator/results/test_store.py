"""Results: published whole, once, and read back as they were."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from orchestrator.failures import StaleAttempt
from orchestrator.results.counted import Today, is_of_today
from orchestrator.results.history import read_history
from orchestrator.results.query import query
from orchestrator.results.store import (
    SCHEMA,
    SCHEMA_VERSION,
    ResultsError,
    counted_rows,
    late_rows,
    planned_rows,
    publish,
    read_rows,
    state_rows,
)
from orchestrator.storage.local_root import LocalRoot
from sweeps.cell import Cell
from tests.support.result_rows import row_of, rows

ROOT = Path(__file__).resolve().parents[3]
CELL = Cell("synthetic", "1of8", "resnet14_w8", 64, "unimatch_star", "kl")

PUBLISH = """
import sys
from orchestrator.results.store import publish
from orchestrator.storage.open import open_root
from sweeps.cell import Cell
from tests.support.result_rows import row_of
cell = Cell("synthetic", "1of8", "resnet14_w8", 64, "unimatch_star", "kl")
{before}
try:
    publish(open_root(sys.argv[1]), row_of(cell, 50.0, error_text=("%030d" % 7) * 9999))
except OSError as error:
    print(error.errno, error)
"""


@given(row=rows)
@settings(max_examples=30)
def test_a_row_reads_back_bit_for_bit(tmp_path_factory, row):
    root = LocalRoot(tmp_path_factory.mktemp("root"))

    publish(root, row)

    assert read_rows(root) == [row]


def test_any_parquet_reader_opens_the_folder_as_it_lies(tmp_path):
    for split in ("1of8", "1of4"):
        publish(LocalRoot(tmp_path), row_of(replace(CELL, split=split), 100 / 3))
    (tmp_path / "results/rows/.half.parquet.tmp").write_bytes(b"PAR1")
    folder = tmp_path / "results/rows"

    frame = pandas.read_parquet(folder)

    assert list(frame["best_miou_percent"]) == [100 / 3] * 2
    assert pa.dataset.dataset(folder).to_table().schema.equals(SCHEMA)


def test_a_root_without_results_has_no_rows(tmp_path):
    assert read_rows(LocalRoot(tmp_path)) == []


def test_publishing_the_same_attempt_twice_is_harmless(tmp_path):
    row = row_of(CELL, 50.0)

    places = {
        publish(LocalRoot(tmp_path), row),
        publish(LocalRoot(tmp_path), replace(row, host="other")),
    }

    assert len(places) == 1
    assert read_rows(LocalRoot(tmp_path)) == [row]


def test_a_done_row_replaces_the_failed_one_of_its_attempt_and_never_the_other_way(tmp_path):
    failed, done = row_of(CELL), row_of(CELL, 50.0)

    for row in (failed, done, failed):
        publish(LocalRoot(tmp_path), row)

    assert read_rows(LocalRoot(tmp_path)) == [done]


def test_a_stale_attempt_cannot_publish(tmp_path):
    newer = row_of(CELL, 51.0, attempt=2)
    publish(LocalRoot(tmp_path), newer)

    with pytest.raises(StaleAttempt, match=r"Attempt 1 of .* is stale: attempt 2 has already"):
        publish(LocalRoot(tmp_path), row_of(CELL, 50.0, attempt=1))

    assert read_rows(LocalRoot(tmp_path)) == [newer]


def test_a_cell_whose_key_begins_like_another_does_not_make_it_stale(tmp_path):
    publish(LocalRoot(tmp_path), row_of(replace(CELL, seed=12), 51.0, attempt=2))
    publish(LocalRoot(tmp_path), row_of(replace(CELL, seed=1), 50.0, attempt=1))

    assert len(read_rows(LocalRoot(tmp_path))) == 2


def test_concurrent_publishers_leave_whole_rows_only(tmp_path):
    every = [row_of(replace(CELL, seed=seed), 50.0) for seed in range(10)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: publish(LocalRoot(tmp_path), row), every * 5))

    assert read_rows(LocalRoot(tmp_path)) == sorted(every, key=lambda row: row.key)
    assert len(list((tmp_path / "results/rows").iterdir())) == 10


def test_publishers_in_many_processes_leave_one_row_per_attempt(tmp_path):
    command = [sys.executable, "-c", PUBLISH.format(before=""), str(tmp_path)]

    started = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]

    assert [process.wait() for process in started] == [0, 0, 0]
    assert [row.key for row in read_rows(LocalRoot(tmp_path))] == [CELL.key]


def test_a_write_that_breaks_off_leaves_nothing_and_says_so(tmp_path):
    # A limit on the size of files stops the write half-way, in the kernel.
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    before = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    done = subprocess.run(
        [sys.executable, "-c", PUBLISH.format(before=before), str(tmp_path)],
        cwd=ROOT,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith(str(errno.EFBIG))
    assert "Nothing was written; make room there" in done.stdout
    assert list((tmp_path / "results/rows").iterdir()) == []


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path):
    # A file system of its own, 16 KiB small, in a namespace that ends with the process.
    script = f'mount -t tmpfs -o size=16k none "$1" && shift && "$@" {tmp_path}; find {tmp_path}'
    space = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    inner = [sys.executable, "-c", PUBLISH.format(before="")]

    done = subprocess.run(
        [*space, "sh", "-c", script, "sh", str(tmp_path), *inner],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    if "unshare:" in done.stderr or "mount:" in done.stderr:
        sys.stderr.write(f"left out: no small disk can be mounted here ({done.stderr.strip()})\n")
        return
    assert done.stdout.startswith(str(errno.ENOSPC)), done.stderr
    assert "the disk is full. Nothing was written; make room there" in done.stdout
    assert ".parquet." not in done.stdout.partition("launch again")[2]


def test_a_place_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "results").write_text("a file where a folder should be")

    with pytest.raises(OSError, match=r"Could not publish .* in .*results/rows: ") as error:
        publish(LocalRoot(tmp_path), row_of(CELL, 50.0))

    assert error.value.errno == errno.ENOTDIR


@pytest.mark.parametrize("content", [b"", b"PAR1 broken", None])
def test_a_broken_file_is_named_and_not_skipped(tmp_path, content):
    path = Path(publish(LocalRoot(tmp_path), row_of(CELL, 50.0)))
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)

    with pytest.raises(ResultsError, match=r"a0001\.parquet is no readable row .* Move it away"):
        read_rows(LocalRoot(tmp_path))


def test_a_foreign_parquet_file_among_the_rows_is_named(tmp_path):
    publish(LocalRoot(tmp_path), row_of(CELL, 50.0))
    (tmp_path / "results/rows/other.parquet").write_bytes(b"")

    with pytest.raises(ResultsError, match=r"other\.parquet is no row"):
        read_rows(LocalRoot(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PAR1 broken", b"\x00" * 99, None, "later"])
def test_a_broken_file_stops_only_the_grids_of_its_cell(tmp_path, content):
    root, other = LocalRoot(tmp_path), replace(CELL, split="1of4")
    publish(root, row_of(CELL, 50.0))
    path = Path(publish(root, row_of(other, 60.0)))
    if content == "later":  # of a later version of the program
        table = pq.read_table(path)
        index = table.schema.get_field_index("schema_version")
        later = pa.array([SCHEMA_VERSION + 1], pa.int32())
        pq.write_table(table.set_column(index, "schema_version", later), path)
    else:
        path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    (tmp_path / "results/rows/notes.parquet").write_bytes(b"")
    history = tmp_path / "results/history"
    history.mkdir()
    (history / path.name).write_bytes(b"PAR1")

    assert [row.key for row in state_rows(root, [CELL])] == [CELL.key]
    assert [row.key for row in read_rows(root, cells=[CELL])] == [CELL.key]
    assert [row.best_miou_percent for row in counted_rows(root, [CELL], {})] == [50.0]
    assert len(read_history(root, [CELL])) == 0
    assert query(root, "SELECT key FROM rows", cells=[CELL]).to_pylist() == [{"key": CELL.key}]
    # A table pools seeds, so a broken file of another seed matters.
    for cells in ([other], [CELL, replace(other, seed=7)]):
        for read in (state_rows, read_history, lambda root, cells: counted_rows(root, cells, {})):
            with pytest.raises(ResultsError):
                read(root, cells)


def test_a_row_under_the_name_of_another_attempt_is_refused_by_the_grids_of_both(tmp_path):
    root, other, third = LocalRoot(tmp_path), replace(CELL, split="1of4"), replace(CELL, crop=96)
    path = Path(publish(root, row_of(CELL, 50.0)))
    shutil.copy(path, path.with_name(f"{other.key}.a0001.parquet"))

    for cells in ([CELL], [other], None):
        with pytest.raises(ResultsError, match=rf"{other.key}\S+ holds another .* {CELL.key}\."):
            state_rows(root, cells)
    assert counted_rows(root, [third], {}) == []
    path.with_name(f"{other.key}.a0001.parquet").unlink()
    shutil.copy(path, path.with_name(f"{CELL.key}.a0002.parquet"))
    with pytest.raises(ResultsError, match=r"a0002\.parquet holds another attempt"):
        state_rows(root, [CELL])


def test_a_broken_file_of_many_cells_stops_every_grid(tmp_path):
    root = LocalRoot(tmp_path)
    publish(root, row_of(CELL, 50.0))
    (tmp_path / "results/rows/compacted-20260101T000000Z-0123456789ab.parquet").write_bytes(b"PAR1")

    with pytest.raises(ResultsError, match="compacted-"):
        state_rows(root, [CELL])


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_row_of_another_schema_version_is_refused(tmp_path, version):
    path = publish(LocalRoot(tmp_path), row_of(CELL, 50.0))
    table = pq.read_table(path)
    other = pa.array([version], pa.int32())
    index = table.schema.get_field_index("schema_version")
    pq.write_table(table.set_column(index, "schema_version", other), path)

    text = rf"has schema version {version}, this checkout reads version 2\. Read it with the"
    with pytest.raises(ResultsError, match=text):
        read_rows(LocalRoot(tmp_path))


def test_a_row_written_before_a_column_was_added_reads_with_its_default(tmp_path):
    path = publish(LocalRoot(tmp_path), row_of(CELL, 50.0, ray="2.60"))
    pq.write_table(pq.read_table(path).drop_columns(["ray"]), path)

    (row,) = read_rows(LocalRoot(tmp_path))

    assert row.ray is None


def test_more_files_than_threads_are_all_read(tmp_path):
    made = [row_of(replace(CELL, seed=seed), 50.0) for seed in range(100, 150)]
    for row in made:
        publish(LocalRoot(tmp_path), row)

    assert read_rows(LocalRoot(tmp_path)) == made


def test_a_row_that_came_after_a_look_is_found_by_the_next(tmp_path: Path) -> None:
    root = LocalRoot(tmp_path)
    first, second = row_of(CELL), row_of(CELL, 50.0, attempt=2)
    publish(root, first)
    known = read_rows(root)
    assert late_rows(root, {first.key}, known) == []

    publish(root, second)

    assert [row.attempt for row in late_rows(root, {first.key}, known)] == [1, 2]
    assert late_rows(root, {"another"}, known) == []


@pytest.mark.parametrize(
    ("column", "of_today"),
    [("data_fingerprint", "data"), ("split_checksum", "split"), ("pretrained_sha256", "weights")],
)
def test_what_tells_rows_apart_is_read_wherever_rows_are_counted(tmp_path, column, of_today):
    root = LocalRoot(tmp_path)
    for attempt, value in ((1, "a" * 64), (2, "b" * 64)):
        publish(root, row_of(CELL, 50.0, attempt=attempt, **{column: value}))
    today = {CELL.key: Today("f" * 64, **{of_today: "a" * 64})}

    (row,) = counted_rows(root, [CELL], today)

    assert (row.attempt, getattr(row, column)) == (1, "a" * 64)
    assert [is_of_today(row, today) for row in planned_rows(root, [CELL])] == [True, False]
