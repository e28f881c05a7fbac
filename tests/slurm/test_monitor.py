"""One answer of Slurm is not the truth."""

from itertools import pairwise
from pathlib import Path

import pytest

from slurm.monitor import JobMonitor
from tests.support.slurm.fake import Clock, FakeSlurm


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return FakeSlurm(tmp_path).install()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def monitor(clock: Clock) -> JobMonitor:
    return JobMonitor(certain_seconds=30, absent_seconds=90, has_accounting=False, clock=clock)


def test_a_job_that_looks_failed_and_then_waits_again_never_ended(
    fake: FakeSlurm, monitor: JobMonitor, clock: Clock
) -> None:
    fake.set(jobs=[fake.job("7", "NODE_FAIL")])
    monitor.look(["7"])
    assert monitor.end_of("7") is None

    fake.set(jobs=[fake.job("7", "PENDING")])
    monitor.look(["7"])
    clock.now += 40

    assert monitor.end_of("7") is None


def test_a_job_that_stays_ended_is_believed(
    fake: FakeSlurm, monitor: JobMonitor, clock: Clock
) -> None:
    fake.set(jobs=[fake.job("7_1", "NODE_FAIL")])
    monitor.look(["7_1"])
    clock.now += 40
    monitor.look(["7_1"])

    end = monitor.end_of("7_1")
    assert end is not None
    assert (end.state, end.nodes) == ("NODE_FAIL", "n1")


def test_a_missing_job_is_unknown_until_it_stays_missing_for_long(
    fake: FakeSlurm, monitor: JobMonitor, clock: Clock
) -> None:
    monitor.look(["7"])
    clock.now += 50
    monitor.look(["7"])
    assert monitor.end_of("7") is None

    clock.now += 50
    end = monitor.end_of("7")
    assert end is not None
    assert end.state == "GONE"
    assert not end.has_ended


def test_a_job_that_only_the_database_still_takes_for_running_is_missing(
    fake: FakeSlurm, clock: Clock
) -> None:
    monitor = JobMonitor(absent_seconds=90, clock=clock)
    fake.set(accounted=[["7", "RUNNING", "n1"], ["8", "COMPLETED", "n1"]])
    monitor.look(["7", "8"])
    clock.now += 100
    monitor.look(["7", "8"])

    runaway, ended = monitor.end_of("7"), monitor.end_of("8")
    assert runaway is not None
    assert ended is not None
    assert (runaway.state, ended.state) == ("GONE", "COMPLETED")


def test_no_answer_says_nothing_about_any_job(
    fake: FakeSlurm, monitor: JobMonitor, clock: Clock
) -> None:
    fake.set(silent=["squeue"])

    assert not monitor.look(["7"])
    clock.now += 100

    assert monitor.is_silent
    assert monitor.end_of("7") is None


def test_requests_become_rarer_while_nothing_happens(fake: FakeSlurm, clock: Clock) -> None:
    monitor = JobMonitor(5.0, 50.0, has_accounting=False, clock=clock)
    fake.set(jobs=[fake.job("7", "RUNNING")])
    asked = []
    for second in range(200):
        if monitor.is_due():
            asked.append(second)
            monitor.look(["7"])
        clock.now += 1

    pauses = [after - before for before, after in pairwise(asked)]
    assert pauses == [5, 8, 12, 17, 26, 38, 50]
    monitor.poll_soon()
    assert not monitor.is_due()
    clock.now += 5
    assert monitor.is_due()


def test_a_job_that_looks_ended_is_looked_at_again_as_soon_as_that_is_certain(
    fake: FakeSlurm, clock: Clock
) -> None:
    monitor = JobMonitor(5.0, 500.0, certain_seconds=15.0, has_accounting=False, clock=clock)
    fake.set(jobs=[fake.job("7", "RUNNING")])
    for _ in range(12):
        clock.now += 500.0
        monitor.look(["7"])
    fake.set(jobs=[fake.job("7", "OUT_OF_MEMORY")])
    monitor.look(["7"])

    clock.now += 15.0

    assert monitor.is_due()
    monitor.look(["7"])
    assert monitor.end_of("7") is not None
