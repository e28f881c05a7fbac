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


TIME_LIMIT = "slurmstepd: error: *** JOB 101 ON n1 CANCELLED AT 2026-05-01 DUE TO TIME LIMIT ***"
KILLED = {
    ("TIMEOUT", TIME_LIMIT): f"as TIMEOUT before an attempt began: {TIME_LIMIT}",
    ("OUT_OF_MEMORY", ""): "as OUT_OF_MEMORY before an attempt began",
    ("CANCELLED", None): "as CANCELLED before it began",
    ("NODE_FAIL", "srun: error: n1 died"): "as NODE_FAIL before an attempt began: srun: error: n1",
    (None, "oom_kill event\nand more"): "ended before an attempt began: oom_kill event",
}


@pytest.mark.parametrize("verb", ["plan", "status"])
@pytest.mark.parametrize(("job", "said"), KILLED.items())
def test_a_cell_whose_job_was_killed_before_it_could_begin_says_why(
    fake: FakeSlurm,
    submitted: Lab,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    job: tuple[str | None, str | None],
    said: str,
) -> None:
    state, log = job
    info = fake.job("101_0", state or "", comment(submitted))
    info[4] = "" if log is None else "n1"
    fake.set(jobs=[info] if state else [])
    if log is not None:
        array = next((submitted.root / "grids/tiny/slurm/batches").iterdir())
        (array / "101_0_0_log.err").write_text(log)

    main([verb, str(submitted.grid), f"root={submitted.root}", "--json"])

    cell = cells(capsys)[UNIMATCH]
    assert said in str(cell["why"])
    assert cell["state"] == ("missing" if log is None else "interrupted")


def test_a_job_that_has_just_started_is_not_called_running_for_no_reason(
    fake: FakeSlurm, submitted: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    info = fake.job("101_0", "RUNNING", comment(submitted))
    info[3] = "None"
    fake.set(jobs=[info])

    main(["status", str(submitted.grid), f"root={submitted.root}", "--json"])

    since = "2026-05-01T09:30:00"
    assert cells(capsys)[UNIMATCH]["why"] == f"job 101_0 begins on n1, submitted {since}"


def test_the_report_says_why_a_job_was_killed(fake: FakeSlurm, submitted: Lab) -> None:
    fake.set(jobs=[fake.job("101_0", "OUT_OF_MEMORY", comment(submitted))])

    main(["report", str(submitted.grid), f"root={submitted.root}"])

    page = (submitted.root / "reports" / "tiny.html").read_text()
    assert "job 101_0 on n1 ended as OUT_OF_MEMORY" in page


def test_logs_prints_what_slurm_wrote_of_a_job_that_never_reported(
    fake: FakeSlurm, submitted: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    array = next((submitted.root / "grids/tiny/slurm/batches").iterdir())
    (array / "101_0_0_log.err").write_text(TIME_LIMIT)

    assert main(["logs", UNIMATCH, f"root={submitted.root}"]) == 0

    assert TIME_LIMIT in capsys.readouterr().out


def comment(submitted: Lab) -> str:
    array = next((submitted.root / "grids/tiny/slurm/batches").iterdir())
    return f"tiny-{array.name}"
