"""What `plan` and `status` say of cells whose jobs wait; Slurm's programs are fakes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.backends.slurm.registry import JobRegistry
from orchestrator.planning.plan import make_plan
from orchestrator.trial import Trial
from slurm.job_spec import JobSpec
from tests.support.lab import KL, UNIMATCH, Lab
from tests.support.slurm.fake import FakeSlurm


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return FakeSlurm(tmp_path).install()


@pytest.fixture
def submitted(fake: FakeSlurm, lab: Lab) -> Lab:
    """Both cells were submitted as one array, and the launch died."""
    lab.write_grid(("unimatch_star", "none"), ("unimatch_star", "kl"))
    cells = make_plan(str(lab.grid), lab.opened).cells
    trials = [Trial(c.key, c.config_json, c.fingerprint, str(lab.root), "slurm", "") for c in cells]
    trials[1] = replace(trials[1], fingerprint="another")
    registry = JobRegistry(lab.root / "grids" / "tiny" / "slurm", "tiny")
    registry.write(trials, JobSpec())[0].array.submit()
    return lab


def cells(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    return {cell["key"]: cell for cell in json.loads(capsys.readouterr().out)["cells"]}


@pytest.mark.parametrize("verb", ["plan", "status"])
def test_a_waiting_job_shows_with_its_number_and_reason_after_one_request(
    fake: FakeSlurm, submitted: Lab, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    main([verb, str(submitted.grid), f"root={submitted.root}", "--json"])

    shown = cells(capsys)
    assert {cell["state"] for cell in shown.values()} == {"queued"}
    since = "2026-05-01T09:30:00"
    job = {"job_id": "101_0", "state": "PENDING", "reason": "Priority", "since": since}
    assert shown[UNIMATCH]["job"] == job
    assert shown[UNIMATCH]["why"] == f"job 101_0 pending (Priority) since {since}"
    assert "launch replaces it" in str(shown[KL]["why"])
    assert fake.num_calls("squeue") == 1


def test_a_job_that_is_gone_leaves_its_cell_missing(
    fake: FakeSlurm, submitted: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.set(jobs=[])

    assert main(["status", str(submitted.grid), f"root={submitted.root}", "--json"]) == 10

    assert {cell["state"] for cell in cells(capsys).values()} == {"missing"}


def test_a_silent_slurm_is_said_and_changes_nothing(
    fake: FakeSlurm, submitted: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.set(silent=["squeue"])

    main(["status", str(submitted.grid), f"root={submitted.root}", "--json"])

    printed = capsys.readouterr()
    assert "Cells may be queued in Slurm, which cannot be asked" in printed.err
    assert {cell["state"] for cell in json.loads(printed.out)["cells"]} == {"missing"}


def test_a_grid_without_jobs_asks_nothing(
    fake: FakeSlurm, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.write_grid(("supervised_star", "none"))

    main(["status", str(lab.grid), f"root={lab.root}", "--json"])

    assert fake.num_calls("squeue") == 0
