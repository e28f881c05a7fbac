"""The state of a cell follows from what lies on disk."""

import json
import subprocess
import sys

import pytest

from orchestrator.display.status import as_json
from orchestrator.planning.plan import Plan, State, make_plan
from orchestrator.storage.lock import held
from orchestrator.storage.paths import Places
from tests.orchestrator.launching import CHECKOUT, KL, SUPERVISED, UNIMATCH, Lab
from trainer.checkpoint_manifest import newest_step

DIVERGES = ("optim.lr=1000", "optim.epochs=8")


def plan_of(lab: Lab, *overrides: str) -> Plan:
    settings = [f"data.root={lab.data}", *overrides]
    return make_plan(str(lab.grid), str(lab.root), overrides=settings)


def state_of(lab: Lab, key: str, *overrides: str) -> State:
    (cell,) = (cell for cell in plan_of(lab, *overrides).cells if cell.key == key)
    return cell.state


def test_a_cell_without_a_trace_is_missing(lab: Lab) -> None:
    lab.write_grid(("supervised", "none"))

    assert state_of(lab, SUPERVISED) is State.missing


def test_a_held_run_folder_is_running_and_names_its_holder(lab: Lab) -> None:
    lab.write_grid(("supervised", "none"))

    with held(Places.at(str(lab.root)).run(SUPERVISED).lock, "attempt 3"):
        (cell,) = plan_of(lab).cells

    assert cell.state is State.running
    assert cell.why.startswith("attempt 3, process ")


def test_a_done_cell_is_done_and_drifts_when_a_default_changes(lab: Lab) -> None:
    lab.write_grid(("supervised", "none"))
    lab.run("launch", "backend=inline")

    assert state_of(lab, SUPERVISED) is State.done
    assert state_of(lab, SUPERVISED, "run.log_steps=7", "data.root=/elsewhere") is State.done
    (cell,) = plan_of(lab, "optim.momentum=0.8").cells
    assert cell.state is State.drifted
    assert cell.changed == ("optim.momentum: 0.9 -> 0.8",)
    assert "optim.momentum: 0.9 -> 0.8" in cell.why


def test_an_estimate_comes_from_a_comparable_done_cell(lab: Lab) -> None:
    lab.write_grid(("supervised", "none"))
    lab.run("launch", "backend=inline")
    lab.write_grid(("supervised", "none"), ("unimatch_star", "none"))

    seconds = {cell.key: cell.seconds for cell in plan_of(lab).cells}

    assert seconds[SUPERVISED] == pytest.approx(lab.rows()[SUPERVISED].seconds)
    assert (seconds[UNIMATCH] or 0.0) > (seconds[SUPERVISED] or 0.0)


def test_a_failed_cell_says_its_class_and_is_missing_under_another_configuration(lab: Lab) -> None:
    lab.write_grid(("supervised", "none"))
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
    step = newest_step(Places.at(str(lab.root)).run(KL).folder)
    assert cell.why == f"goes on from step {step}"
    assert state_of(lab, KL, "optim.lr=0.5") is State.drifted


def test_json_names_every_cell_once_with_its_state(lab: Lab) -> None:
    lab.write_grid(("supervised", "none"), ("unimatch_star", "kl"))
    plan = plan_of(lab)

    found = json.loads(as_json(plan, [KL]))

    assert [cell["key"] for cell in found["cells"]] == [SUPERVISED, KL]
    assert [cell["state"] for cell in found["cells"]] == ["missing", "missing"]
    assert [cell["runs"] for cell in found["cells"]] == [False, True]
    assert found["counts"]["missing"] == 2


def test_only_chooses_by_key_and_refuses_what_fits_nothing(lab: Lab) -> None:
    lab.write_grid(("supervised", "none"), ("unimatch_star", "kl"))

    assert make_plan(str(lab.grid), str(lab.root), only="*.kl.*").cells[0].key == KL
    with pytest.raises(ValueError, match=r"only=voc\* fits none of the 2 cells"):
        make_plan(str(lab.grid), str(lab.root), only="voc*")


@pytest.mark.parametrize("verb", ["plan", "status", "tables"])
def test_planning_verbs_import_neither_torch_nor_ray(lab: Lab, verb: str) -> None:
    lab.write_grid(("supervised", "none"))
    script = (
        "import sys; from orchestrator.__main__ import main; main(sys.argv[1:]);"
        "sys.exit(bool({'torch', 'ray'} & set(sys.modules)))"
    )
    call = [sys.executable, "-c", script, verb, str(lab.grid), *lab.words]

    done = subprocess.run(call, cwd=CHECKOUT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_paper_is_one_hundred_missing_cells(lab: Lab) -> None:
    plan = make_plan("paper", str(lab.root))

    assert len({cell.key for cell in plan.cells}) == 100
    assert plan.count(State.missing) == 100
