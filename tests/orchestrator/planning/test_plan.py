"""The state of a cell follows from what lies on disk."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from datasets.__main__ import main
from datasets.files import file_sha256
from orchestrator.display.status import plan_json
from orchestrator.execution.queue import in_start_order
from orchestrator.launch import first_tables
from orchestrator.planning.estimate import work
from orchestrator.planning.plan import Plan, PlannedCell, State, make_plan
from orchestrator.results.store import publish, read_rows
from orchestrator.storage.file_lock import file_lock
from orchestrator.storage.local_root import LocalRoot
from sweeps.grid import load_grid
from tests.support import dataset_trees as trees
from tests.support.lab import BASE, CHECKOUT, KL, SUPERVISED, TINY, UNIMATCH, Lab
from tests.support.result_rows import row_of
from tests.support.strategies import labels
from trainer.checkpoint import CheckpointError
from trainer.checkpoint_manifest import newest_step
from trainer.config.compose import compose
from trainer.config.fingerprint import config_json
from trainer.run import train

DIVERGES = ("optim.lr=1000", "optim.epochs=8")


def plan_of(lab: Lab, *overrides: str) -> Plan:
    settings = [f"data.root={lab.data}", *overrides]
    return make_plan(str(lab.grid), lab.opened, overrides=settings)


def state_of(lab: Lab, key: str, *overrides: str) -> State:
    (cell,) = (cell for cell in plan_of(lab, *overrides).cells if cell.key == key)
    return cell.state


def test_a_cell_without_a_trace_is_missing(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))

    assert state_of(lab, SUPERVISED) is State.missing


def test_a_held_run_folder_is_running_and_names_its_holder(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))

    with file_lock(lab.opened.run(SUPERVISED).lock, "attempt 3"):
        (cell,) = plan_of(lab).cells

    assert cell.state is State.running
    assert cell.why.startswith("attempt 3, process ")


def test_a_done_cell_is_done_and_drifts_when_a_default_changes(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))
    lab.run("launch", "backend=inline")

    assert state_of(lab, SUPERVISED) is State.done
    assert state_of(lab, SUPERVISED, "run.log_steps=7", "data.root=/elsewhere") is State.done
    (cell,) = plan_of(lab, "optim.momentum=0.8").cells
    assert cell.state is State.drifted
    assert cell.changed == ("optim.momentum: 0.9 -> 0.8",)
    assert "optim.momentum: 0.9 -> 0.8" in cell.why


def test_an_estimate_comes_from_a_comparable_done_cell(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))
    lab.run("launch", "backend=inline")
    lab.write_grid(("supervised_star", "none"), ("unimatch_star", "none"))

    seconds = {cell.key: cell.seconds for cell in plan_of(lab).cells}

    assert seconds[SUPERVISED] == pytest.approx(lab.rows()[SUPERVISED].seconds)
    assert (seconds[UNIMATCH] or 0.0) > (seconds[SUPERVISED] or 0.0)


def test_a_failed_cell_says_its_class_and_is_missing_under_another_configuration(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))
    lab.run("launch", "backend=inline", *DIVERGES, code=11)

    (cell,) = plan_of(lab, *DIVERGES).cells

    assert cell.state is State.failed
    assert cell.why.startswith("diverged: ")
    assert state_of(lab, SUPERVISED) in (State.missing, State.drifted)


def test_a_folder_with_a_checkpoint_and_no_owner_is_interrupted(lab: Lab) -> None:
    lab.write_grid(("unimatch_star", "kl"), epochs=20)
    process = lab.start("launch", "backend=inline")
    lab.worker_at(KL, step=2)
    process.kill()
    process.communicate()

    (cell,) = plan_of(lab).cells

    assert cell.state is State.interrupted
    step = newest_step(lab.opened.run(KL).folder)
    assert cell.why == f"goes on from step {step}"
    assert state_of(lab, KL, "optim.lr=0.5") is State.drifted


def test_json_names_every_cell_once_with_its_state(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"), ("unimatch_star", "kl"))
    plan = plan_of(lab)

    found = json.loads(plan_json(plan, [KL]))

    assert [cell["key"] for cell in found["cells"]] == [SUPERVISED, KL]
    assert [cell["state"] for cell in found["cells"]] == ["missing", "missing"]
    assert [cell["runs"] for cell in found["cells"]] == [False, True]
    assert found["counts"]["missing"] == 2


def test_only_chooses_by_key_and_refuses_what_fits_nothing(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"), ("unimatch_star", "kl"))

    assert make_plan(str(lab.grid), lab.opened, only="*.kl.*").cells[0].key == KL
    with pytest.raises(ValueError, match=r"only=voc\* fits none of the 2 cells"):
        make_plan(str(lab.grid), lab.opened, only="voc*")


@pytest.mark.parametrize("verb", ["plan", "status", "tables"])
def test_planning_verbs_import_neither_torch_nor_ray_nor_pandas(lab: Lab, verb: str) -> None:
    lab.write_grid(("supervised_star", "none"))
    script = (
        "import sys; from orchestrator.__main__ import main; main(sys.argv[1:]);"
        "sys.exit(bool({'torch', 'ray', 'pandas'} & set(sys.modules)))"
    )
    call = [sys.executable, "-c", script, verb, str(lab.grid), *lab.words]

    done = subprocess.run(call, cwd=CHECKOUT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_paper_is_one_hundred_missing_cells(lab: Lab) -> None:
    plan = make_plan("paper", lab.opened)

    assert len({cell.key for cell in plan.cells}) == 100
    assert plan.count(State.missing) == 100


SMALL = (
    *("model=resnet14_w8", "model.init=random", "data.crop=32", "optim.epochs=1"),
    *("run.checkpoint_steps=1", "run.device=cpu", "method=supervised", "loss=none"),
    "optim.batch=2",  # times the preset's factor of 4
)


def images(root: Path, seed: int) -> Path:
    """Twelve labelled images of the same names and sizes, whatever the seed."""
    for index in range(12):
        trees.put(root / f"photos/i{index:02d}.jpg", trees.jpeg(seed + index))
        mask = trees.grey_png(labels(seed + index, trees.SIZE, 3))
        trees.put(root / f"truth/i{index:02d}.png", mask)
    described = {
        "classes": ["background", "cell", "wall"],
        "images": "photos/{id}.jpg",
        "masks": "truth/{id}.png",
    }
    trees.put(root / "dataset.yaml", yaml.safe_dump(described))
    main(["prepare", "folder", f"root={root}"])
    return root


def write_folder_grid(lab: Lab, *seeds: int) -> None:
    base = {"recipe": "folder", "split": "all", "crop": 32, "backbone": "resnet14_w8"}
    cell = {"base": {**base, "method": "supervised", "loss": "none"}}
    overrides = [*SMALL[1:2], "optim.epochs=1", "optim.batch=2", *TINY[2:]]
    spec = {"title": "T", "overrides": overrides, "cells": [cell]}
    lab.grid.write_text(yaml.safe_dump({**spec, "seeds": list(seeds)} if seeds else spec))


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return images(tmp_path / "first", 0), images(tmp_path / "second", 100)


def test_a_cell_done_on_other_images_is_drifted_until_it_runs_on_these(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    lab = Lab(tmp_path, two[0])
    write_folder_grid(lab)

    def planned(root: Path) -> PlannedCell:
        plan = make_plan(str(lab.grid), lab.opened, overrides=[f"data.root={root}"])
        return plan.cells[0]

    lab.run("launch", "backend=inline")
    assert [planned(root).state for root in two] == [State.done, State.drifted]

    second = Lab(tmp_path, two[1])
    assert "rerun=drifted" in second.run("launch", "backend=inline", code=10)
    assert "other images" in planned(two[1]).why
    second.run("launch", "backend=inline", "rerun=drifted")

    assert [planned(root).state for root in two] == [State.done, State.done]
    assert [row.attempt for row in second.rows().values()] == [2]


def test_a_checkpoint_of_other_images_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = (compose(["recipe=folder", *SMALL, f"data.root={root}"]) for root in two)
    train(first, tmp_path / "run", should_stop=lambda: True)

    with pytest.raises(
        CheckpointError, match=r"cannot go on bit for bit: data\.root: other images"
    ):
        train(second, tmp_path / "run")


def test_every_reader_chooses_todays_row_after_another_setting_was_tried(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))
    lab.run("launch", "backend=inline")
    lab.run("launch", "backend=inline", "rerun=drifted", "optim.epochs=2")
    first, second = (row.best_miou_percent or 0.0 for row in read_rows(lab.opened))

    for words, score, attempt in (((), first, 1), (("optim.epochs=2",), second, 2)):
        (cell,) = plan_of(lab, *words).cells
        assert (cell.state, cell.why.split(" on ")[0]) == (State.done, f"attempt {attempt}")
        table = lab.run("tables", *words)
        assert f" {score:.1f} \n" in table
        assert "rerun=drifted" not in table
        lab.run("export", "to=csv", *words)
        with (lab.root / "exports/tiny/csv/rows.csv").open() as file:
            assert [row["attempt"] for row in csv.DictReader(file)] == [str(attempt)]
        counted = lab.run("query", "SELECT attempt FROM counted", *words, "--json")
        assert json.loads(counted) == [{"attempt": attempt}]
    status = lab.run("status")
    assert " 1/1 " in status, "the epochs of attempt 1, not of the run that lies in its place now"
    told = lab.run("tables", "--explain", SUPERVISED)
    assert "for each seed: attempt 1\n" in told

    aside = f"runs/{SUPERVISED}~{plan_of(lab).cells[0].fingerprint[:8]}"
    assert [line.split("run folder ")[1] for line in told.splitlines() if "run folder" in line] == [
        aside,
        f"runs/{SUPERVISED}",
    ]


def test_a_renewal_that_was_cut_off_goes_on_by_itself(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))
    lab.run("launch", "backend=inline")
    lab.write_grid(("supervised_star", "none"), epochs=400)
    process = lab.start("launch", "backend=inline", "rerun=drifted")
    lab.worker_at(SUPERVISED, step=9)  # the run of before ended at step 3
    process.kill()
    process.communicate()

    (cell,) = plan_of(lab).cells

    assert cell.state is State.interrupted
    assert cell.why.startswith("goes on from step ")


def test_a_seed_that_the_grid_lacks_is_renewed_by_adding_it(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))
    old = replace(load_grid(str(lab.grid)).cells[0], seed=7)
    publish(lab.opened, row_of(old, 33.3))

    table = lab.run("tables")

    assert "(first add to the grid's `seeds` what it lacks: 7)" in table


def test_masks_corrected_in_place_are_seen_kept_apart_and_renewed(tmp_path: Path) -> None:
    lab = Lab(tmp_path, images(tmp_path / "own", 0))
    write_folder_grid(lab, 1)
    lab.run("launch", "backend=inline")

    for index in range(2):
        mask = trees.grey_png(labels(50 + index, trees.SIZE, 3))
        trees.put(lab.data / f"truth/i{index:02d}.png", mask)
    write_folder_grid(lab, 1, 2)
    lab.run("launch", "backend=inline", code=10)

    first, second = plan_of(lab).cells
    assert (first.state, second.state) == (State.drifted, State.done)
    assert "2 changed of 25 files, such as truth/i00.png, truth/i01.png" in first.why
    rows = {row.seed: row for row in read_rows(lab.opened)}
    table = " ".join(lab.run("tables").split())
    assert f"{rows[2].best_miou_percent:.1f} m,n=1" in table
    assert f"seed 1: {rows[1].best_miou_percent:.1f} (other images or masks)" in table
    assert "Launch with rerun=drifted to renew them." in table

    lab.run("launch", "backend=inline", "rerun=drifted")

    assert [cell.state for cell in plan_of(lab).cells] == [State.done, State.done]
    table = lab.run("tables")
    assert "±" in table
    assert "m,n=1" not in table


def test_a_cell_that_began_with_another_file_of_weights_is_drifted(tmp_path: Path) -> None:
    lab = Lab(tmp_path, tmp_path / "data")
    base = {**BASE, "backbone": "resnet50", "method": "supervised_star", "loss": "none"}
    lab.grid.write_text(yaml.safe_dump({"title": "T", "cells": [{"base": base}]}))
    weights = tmp_path / "resnet50.pth"
    words = ("model.init=imagenet", f"run.weights={weights}")
    (cell,) = plan_of(lab, *words).cells
    weights.write_bytes(b"one")
    row = row_of(load_grid(str(lab.grid)).cells[0], 50.0, pretrained_sha256=file_sha256(weights))
    text = config_json(cell.config)
    publish(lab.opened, replace(row, fingerprint=cell.fingerprint, config_json=text))

    assert state_of(lab, cell.key, *words) is State.done
    weights.write_bytes(b"another")
    (cell,) = plan_of(lab, *words).cells
    assert cell.state is State.drifted
    old, new = row.pretrained_sha256[:8], file_sha256(weights)[:8]
    assert cell.why == f"done with other first weights ({old} -> {new})"
    weights.unlink()
    assert state_of(lab, cell.key, *words) is State.done  # not known here


def test_results_are_read_where_the_data_is_not_and_nothing_runs_there(tmp_path: Path) -> None:
    lab = Lab(tmp_path, images(tmp_path / "own", 0))
    write_folder_grid(lab, 1)
    lab.run("launch", "backend=inline")
    table = lab.run("tables")
    shutil.move(lab.data, tmp_path / "elsewhere")

    assert lab.run("tables") == table
    assert "1 done" in lab.run("status")
    for verb in (["report"], ["export"], ["diff", f"with={lab.opened.address}"]):
        lab.run(*verb)
    for verb in ("plan", "launch", "work"):
        assert f"There is no folder {lab.data}" in lab.run(verb, code=2)
    write_folder_grid(lab, 1, 2)
    assert "1 done, 1 missing" in lab.run("status", code=10)


def test_a_checkpoint_of_masks_that_were_corrected_is_drifted(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    lab = Lab(tmp_path, two[0])
    write_folder_grid(lab)
    (cell,) = plan_of(lab).cells
    train(cell.config, lab.opened.run(cell.key).folder, should_stop=lambda: True)

    assert plan_of(lab).cells[0].state is State.interrupted
    trees.put(lab.data / "truth/i03.png", trees.grey_png(labels(60, trees.SIZE, 3)))

    assert plan_of(lab).cells[0].state is State.drifted
    assert "1 changed of 25 files, such as truth/i03.png" in plan_of(lab).cells[0].why


def test_cells_of_the_first_seed_start_before_those_of_the_second_and_long_ones_first(
    tmp_path: Path,
) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("title: Seeds\ntables: [demo, drawings]\nseeds: [2, 7]\n")
    plan = make_plan(str(path), LocalRoot(tmp_path))

    starts = in_start_order(
        plan.cells, {cell.key: work(cell.config) for cell in plan.cells}, first_tables(plan)
    )

    keys = [cell.key.replace("synthetic+data-drawn-", "drawing") for cell in starts]
    assert [key[-2:] for key in keys] == ["s2"] * (len(keys) // 2) + ["s7"] * (len(keys) // 2)
    assert [key.startswith("drawing") for key in keys[:43]] == [False] * 3 + [True] * 40
    assert "unimatch_star" in keys[0]
    assert "supervised_star" in keys[2]
