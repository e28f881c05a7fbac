"""What an attempt asks of the results, which must not grow with the rows of other cells."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution.attempt import has_done_row, run_trial
from orchestrator.planning.plan import make_plan
from orchestrator.results.compaction import compact
from orchestrator.results.store import publish
from orchestrator.storage.local_root import LocalRoot
from orchestrator.trial import Trial
from sweeps.cell import Cell
from tests.support.lab import SUPERVISED, Lab
from tests.support.result_rows import row_of
from tests.support.s3.session import Store

CELL = Cell.parse(SUPERVISED)
TRIAL = Trial(SUPERVISED, "{}", "f" * 64, "", "inline", "")


def trial_in(lab: Lab) -> Trial:
    """The only cell of a grid as a trial."""
    lab.write_grid(("supervised_star", "none"))
    words = [f"data.root={lab.data}"]
    (cell,) = make_plan(str(lab.grid), lab.opened, overrides=words).cells
    trial = Trial(cell.key, cell.config_json, cell.fingerprint, lab.address, "inline", "")
    return replace(trial, stop_file=str(lab.folder / "stop"), root_scratch=str(lab.folder / "far"))


@pytest.fixture
def listed() -> Iterator[list[str]]:
    """Folders whose names this process asks for."""
    folders: list[str] = []
    is_over = False

    def note(event: str, given: tuple[object, ...]) -> None:
        if event in ("os.listdir", "os.scandir") and not is_over:  # a hook cannot be removed
            folders.append(str(given[0]))

    sys.addaudithook(note)
    yield folders
    is_over = True


def test_an_attempt_in_a_folder_never_lists_the_rows(lab: Lab, listed: list[str]) -> None:
    trial = trial_in(lab)
    rows = lab.opened.results("rows")
    rows.put("other.a0001.parquet", b"")
    listed.clear()

    assert run_trial(trial).status == "done"

    assert f"{lab.root}/runs/{SUPERVISED}/attempts" in listed
    assert rows.address not in listed
    assert rows.names() == {"other.a0001.parquet", f"{SUPERVISED}.a0001.parquet"}


def test_an_attempt_in_a_bucket_lists_no_rows_of_other_cells(lab: Lab, store: Store) -> None:
    far = replace(lab, url=store.url)
    trial, rows = trial_in(far), far.opened.results("rows")
    rows.put("other.a0001.parquet", b"")
    store.proxy.heal()

    assert run_trial(trial).status == "done"

    lists = [line for line in store.proxy.lines if "list-type" in line and "results" in line]
    assert lists
    assert [line for line in lists if not re.search(rf"rows(/|%2F){SUPERVISED}", line)] == []
    assert rows.names() == {"other.a0001.parquet", f"{SUPERVISED}.a0001.parquet"}


def test_a_row_of_a_run_that_was_removed_counts_as_done(tmp_path: Path) -> None:
    root = LocalRoot(tmp_path)
    publish(root, row_of(CELL, 50.0))

    assert has_done_row(root, TRIAL, newest=0)
    assert not has_done_row(root, replace(TRIAL, fingerprint="0" * 64), newest=0)
    assert not has_done_row(root, replace(TRIAL, published_attempt=1), newest=1)


def test_a_row_that_was_compacted_after_the_plan_counts_as_done(tmp_path: Path) -> None:
    root = LocalRoot(tmp_path)
    publish(root, row_of(CELL, 50.0, attempt=2))
    compact(root)

    assert has_done_row(root, TRIAL, newest=2)
