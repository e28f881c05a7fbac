"""What a dispatcher does when Slurm behaves strangely; the programs are fakes."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.backends.slurm.cell_job import JobReport
from orchestrator.backends.slurm.dispatcher import Dispatcher
from orchestrator.backends.slurm.registry import JobRegistry
from orchestrator.execution.queue import Queue
from orchestrator.trial import Outcome, Trial
from slurm.job_spec import JobSpec
from slurm.monitor import JobMonitor
from tests.support.fake_slurm import FakeSlurm


class Ends:
    """A listener that notes what ended."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def started(self, trial: Trial) -> None:
        return

    def ended(self, trial: Trial, outcome: Outcome, *, retried: bool) -> None:
        self.words.append(f"{trial.key} {outcome.failure or outcome.status} {retried}")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return FakeSlurm(tmp_path).install()


def dispatcher(root: Path, num_cells: int = 3, fingerprint: str = "f") -> Dispatcher:
    trials = [Trial(f"cell{i}", "", fingerprint, str(root), "slurm", "") for i in range(num_cells)]
    queue = Queue(
        waiting=trials,
        slots=100,
        listener=Ends(),
        give_up=lambda trial, outcome: None,
        is_stopping=lambda: False,
    )
    return Dispatcher(
        queue=queue,
        desk=JobRegistry(root / "grids" / "g" / "slurm", "g"),
        watch=JobMonitor(0.05, 0.1, certain_seconds=0.3, absent_seconds=0.6, has_accounting=False),
        job_spec_of=lambda trial, hungry: JobSpec(),
        max_array_size=100,
        say=lambda text: None,
        started=lambda trial: None,
    )


def steps(found: Dispatcher, seconds: float) -> None:
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        found.step()
        time.sleep(0.05)


def end(found: Dispatcher, key: str, status: str) -> None:
    job = found.jobs[key]
    outcome = Outcome("done") if status == "done" else Outcome("failed", failure=status)
    note = JobReport(key, job.batch.name, job.job_id or "", 0, "n1", "ended", outcome)
    note.write(found.desk.notes)


def test_cells_of_one_shape_are_one_submission(fake: FakeSlurm, tmp_path: Path) -> None:
    found = dispatcher(tmp_path, num_cells=20)
    found.step()

    assert fake.num_calls("sbatch") == 1
    assert found.jobs["cell7"].job_id == "101_7"


def test_a_full_queue_takes_what_fits_and_the_rest_later(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.set(most=3)
    found = dispatcher(tmp_path, num_cells=7)
    for _ in range(6):
        found.step()

    assert len(found.jobs) == 3
    assert len(found.queue.waiting) == 4
    fake.set(most=100)
    found._full_until = 0.0  # a minute later
    for _ in range(3):
        found.step()
    assert len(found.jobs) == 7
    assert [trial.key for trial in found.queue.waiting] == []


def test_a_submission_that_never_arrived_is_made_again(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.set(silent=["sbatch"])
    found = dispatcher(tmp_path)
    found.step()
    assert [job.job_id for job in found.jobs.values()] == [None] * 3

    fake.set(silent=[])
    steps(found, 1.0)

    assert [job.job_id for job in found.jobs.values()] == ["101_0", "101_1", "101_2"]


def test_a_new_launch_takes_over_living_jobs_of_the_same_configuration(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    dispatcher(tmp_path).step()

    same, other = dispatcher(tmp_path), dispatcher(tmp_path, fingerprint="g")
    assert same.attach() == 3
    same.step()
    assert fake.num_calls("sbatch") == 1

    assert other.attach() == 0
    other.step()
    assert fake.num_calls("scancel") == 1
    assert other.jobs["cell0"].job_id == "102_0"


def test_jobs_of_another_code_go_on_and_are_told(fake: FakeSlurm, tmp_path: Path) -> None:
    dispatcher(tmp_path).step()
    told: list[str] = []
    later = dispatcher(tmp_path)
    later.say = told.append
    later.queue.waiting = [replace(trial, code="/root/code/b") for trial in later.queue.waiting]

    assert later.attach() == 3
    assert told == ["3 jobs go on with the code of their own launch, which is not today's"]


def test_a_number_that_came_back_for_another_job_is_not_ours(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    dispatcher(tmp_path, num_cells=1).step()
    fake.set(jobs=[fake.job("101", "RUNNING", "somebody-elses")])

    assert dispatcher(tmp_path, num_cells=1).attach() == 0


def test_a_forgotten_job_is_replaced_only_after_long_and_cancelled_first(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    found = dispatcher(tmp_path, num_cells=1)
    found.step()
    fake.set(jobs=[])
    steps(found, 0.3)
    assert found.queue.listener.words == []  # type: ignore[attr-defined]

    steps(found, 1.5)
    assert found.queue.listener.words[0] == "cell0 node_lost True"  # type: ignore[attr-defined]
    assert fake.num_calls("scancel") >= 1
    assert fake.num_calls("sbatch") >= 2


def test_a_note_settles_a_job_before_slurm_is_asked(fake: FakeSlurm, tmp_path: Path) -> None:
    found = dispatcher(tmp_path)
    found.step()
    fake.set(silent=["squeue"])
    end(found, "cell1", "done")
    end(found, "cell2", "out_of_memory")
    found.step()

    ended = found.queue.listener.words  # type: ignore[attr-defined]
    assert sorted(ended) == ["cell1 done False", "cell2 out_of_memory True"]
    assert found._oom_count == {"cell2": 1}
