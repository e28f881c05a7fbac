"""One answer of Slurm is not the truth."""

import time
from pathlib import Path

import pytest

from slurm.monitor import JobMonitor
from tests.support.fake_slurm import FakeSlurm


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return FakeSlurm(tmp_path).install()


def watch() -> JobMonitor:
    return JobMonitor(certain_seconds=0.3, absent_seconds=0.9, has_accounting=False)


def test_a_job_that_looks_failed_and_then_waits_again_never_ended(fake: FakeSlurm) -> None:
    seen = watch()
    fake.set(jobs=[fake.job("7", "NODE_FAIL")])
    seen.look(["7"])
    assert seen.end_of("7") is None

    fake.set(jobs=[fake.job("7", "PENDING")])
    seen.look(["7"])
    time.sleep(0.4)

    assert seen.end_of("7") is None


def test_a_job_that_stays_ended_is_believed(fake: FakeSlurm) -> None:
    seen = watch()
    fake.set(jobs=[fake.job("7_1", "NODE_FAIL")])
    seen.look(["7_1"])
    time.sleep(0.4)
    seen.look(["7_1"])

    end = seen.end_of("7_1")
    assert end is not None
    assert (end.state, end.nodes) == ("NODE_FAIL", "n1")


def test_a_missing_job_is_unknown_until_it_stays_missing_for_long(fake: FakeSlurm) -> None:
    seen = watch()
    seen.look(["7"])
    time.sleep(0.5)
    seen.look(["7"])
    assert seen.end_of("7") is None

    time.sleep(0.5)
    end = seen.end_of("7")
    assert end is not None
    assert end.state == "GONE"
    assert not end.has_ended


def test_no_answer_says_nothing_about_any_job(fake: FakeSlurm) -> None:
    seen = watch()
    fake.set(silent=["squeue"])

    assert not seen.look(["7"])
    time.sleep(1.0)

    assert seen.is_silent
    assert seen.end_of("7") is None


def test_requests_become_rarer_while_nothing_happens(fake: FakeSlurm) -> None:
    seen = JobMonitor(shortest_seconds=0.1, longest_seconds=1.0, has_accounting=False)
    fake.set(jobs=[fake.job("7", "RUNNING")])
    stop = time.monotonic() + 2.5
    while time.monotonic() < stop:
        if seen.is_due():
            seen.look(["7"])
        time.sleep(0.02)
    calm = seen.num_requests
    assert 5 <= calm <= 9

    seen.poll_soon()
    time.sleep(0.15)
    assert seen.is_due()
