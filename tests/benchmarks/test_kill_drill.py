import os
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.kill_drill.__main__ import drill
from benchmarks.kill_drill.compare import differences
from benchmarks.kill_drill.drill import Plan
from orchestrator.results.store import publish
from orchestrator.storage.file_lock import FRESH_VARIABLE
from tests.support.lab import KL, SUPERVISED, Lab

pytestmark = pytest.mark.long


def test_a_grid_under_kills_a_full_and_a_read_only_disk_ends_as_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    tally = drill(Plan("inline", tmp_path, kills=5, cells=2, seed=7))

    assert tally.kills == 5
    assert tally.findings == []
    assert FRESH_VARIABLE not in os.environ


def test_five_workers_that_die_and_come_back_end_a_grid_as_one_process(tmp_path: Path) -> None:
    tally = drill(Plan("work", tmp_path, kills=4, cells=3, seed=3))

    assert tally.kills == 4
    assert tally.findings == []


def test_the_drill_finds_what_is_lost_twice_or_different(tmp_path: Path) -> None:
    calm, rough = (Lab(tmp_path / name, tmp_path / "drawn") for name in ("calm", "rough"))
    for lab in (calm, rough):
        lab.folder.mkdir()
        lab.write_grid(("supervised_star", "none"), ("unimatch_star", "kl"))
        lab.run("launch", "backend=inline")
    assert differences(calm, rough) == []

    row = rough.rows()[KL]
    publish(rough.opened, replace(row, attempt=2, best_iou_percent=(1.0,), weights_sha256="0"))
    for path in rough.root.glob(f"results/rows/{SUPERVISED}.*"):
        path.unlink()

    found = "\n".join(differences(calm, rough))
    for words in (f"{KL} has 2 done rows", f"{SUPERVISED} is lost", f"{KL}: weights_sha256 is 0"):
        assert words in found
    assert "best_iou_percent" in found
    assert "table tiny.md differs" in found
    assert f"{KL}: history is []" in found
