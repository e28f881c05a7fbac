"""What a dispatcher does when Slurm behaves strangely; the programs are fakes, and so is time."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from orchestrator.backends.base import PoolEvent
from orchestrator.backends.slurm.cell_job import JobReport
from orchestrator.backends.slurm.dispatcher import Dispatcher
from orchestrator.backends.slurm.registry import JobRegistry
from orchestrator.execution.allowance import Allowance
from orchestrator.trial import Outcome, Trial
from slurm.job_spec import JobSpec
from slurm.monitor import JobMonitor
from slurm.submitit_adapter import failure_mark
from tests.support.slurm.fake import Clock, FakeSlurm


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return FakeSlurm(tmp_path).install()


@dataclass
class Launch:
    """A dispatcher, its clock, and what it said and reported."""

    root: Path
    num_cells: int = 3
    fingerprint: str = "f"
    code: str = ""
    clock: Clock = field(default_factory=Clock)
    messages: list[str] = field(default_factory=list)
    reports: list[PoolEvent] = field(default_factory=list)
    limit: Allowance | None = None
    must_end: bool = False
    memory_gb: float = 1.0

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(
            registry=JobRegistry(self.root / "grids" / "g" / "slurm", "g"),
            monitor=JobMonitor(
                5.0,
                10.0,
                certain_seconds=30.0,
                absent_seconds=60.0,
                has_accounting=False,
                clock=self.clock,
            ),
            job_spec_of=lambda trial, oom_count: JobSpec(
                memory_gb=self.memory_gb * (1 + oom_count)
            ),
            prepare_trial=lambda trial: trial,
            max_jobs=100,
            max_array_size=100,
            on_message=self.messages.append,
            clock=self.clock,
            limit=self.limit,
            must_end=lambda: self.must_end,
        )

    @property
    def trials(self) -> list[Trial]:
        blank = Trial("", "", self.fingerprint, str(self.root), "slurm", "", code=self.code)
        return [replace(blank, key=f"cell{i}") for i in range(self.num_cells)]

    @property
    def job_ids(self) -> list[str | None]:
        return [job.job_id for job in self.dispatcher.jobs.values()]

    def start(self) -> "Launch":
        self.dispatcher.start(self.trials)
        return self

    def adopt(self) -> int:
        return len(self.dispatcher.adopt(self.trials))

    def polls(self, seconds: float) -> list[PoolEvent]:
        """Let time go by, with a poll every second."""
        news: list[PoolEvent] = []
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            news += self.dispatcher.poll()
        return news

    def end(self, key: str, status: str, *, next_memory: str = "") -> None:
        """Let the job of a cell say how it ended."""
        job = self.dispatcher.jobs[key]
        failed = Outcome("failed", failure=status, next_memory=next_memory)
        outcome = Outcome(status) if status in ("done", "stopped") else failed
        report = JobReport(key, job.array.name, job.job_id or "", 0, "n1", "ended", outcome)
        report.write(self.dispatcher.registry.reports)


def events(news: list[PoolEvent]) -> list[str]:
    return [
        f"{report.key} {report.outcome.failure or report.outcome.status}"
        if report.outcome
        else f"{report.key} {report.event}"
        for report in news
    ]


def test_cells_that_ask_for_the_same_are_one_submission(fake: FakeSlurm, tmp_path: Path) -> None:
    launch = Launch(tmp_path, num_cells=20).start()

    assert fake.num_calls("sbatch") == 1
    assert launch.dispatcher.jobs["cell7"].job_id == "101_7"


def test_a_full_queue_takes_what_fits_and_the_rest_later(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.set(most=3)
    launch = Launch(tmp_path, num_cells=7)
    waiting = launch.trials
    for _ in range(6):
        launch.dispatcher.start(waiting)
        back = [report.key for report in launch.polls(1)]
        waiting = [trial for trial in launch.trials if trial.key in back]

    assert len(launch.dispatcher.jobs) == launch.dispatcher.slots == 3
    assert len(waiting) == 4
    assert "3 jobs in the queue, more are refused now" in launch.messages[-1]
    fake.set(most=100)
    launch.polls(60)
    assert launch.dispatcher.slots == 100
    launch.dispatcher.start(waiting)
    assert sorted(launch.dispatcher.jobs) == [trial.key for trial in launch.trials]
    assert launch.polls(1) == []


def test_cells_without_room_are_reported_from_the_last_to_the_first(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    fake.set(most=0)

    news = Launch(tmp_path).start().polls(1)

    assert events(news[:3]) == ["cell2 no room", "cell1 no room", "cell0 no room"]


def test_a_submission_that_never_arrived_is_made_again(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.set(silent=["sbatch"])
    launch = Launch(tmp_path).start()
    assert launch.job_ids == [None] * 3

    fake.set(silent=[])
    news = launch.polls(60)

    assert events(news) == ["cell2 no room", "cell1 no room", "cell0 no room"]
    assert launch.start().job_ids == ["101_0", "101_1", "101_2"]


def test_a_new_launch_takes_over_living_jobs_of_the_same_configuration(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    Launch(tmp_path).start()

    same, other = Launch(tmp_path), Launch(tmp_path, fingerprint="g")
    assert same.adopt() == 3
    assert fake.num_calls("sbatch") == 1
    assert "still going on from an earlier launch: 3 jobs" in same.messages[-1]

    assert other.adopt() == 0
    assert fake.num_calls("scancel") == 1
    assert other.start().dispatcher.jobs["cell0"].job_id == "102_0"


def test_jobs_of_another_code_go_on_and_are_told(fake: FakeSlurm, tmp_path: Path) -> None:
    Launch(tmp_path).start()
    later = Launch(tmp_path, code="/root/code/b")

    assert later.adopt() == 3
    assert (
        later.messages[0] == "3 jobs go on with the code of their own launch, which is not today's"
    )


def test_a_number_that_came_back_for_another_job_is_not_ours(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    Launch(tmp_path, num_cells=1).start()
    fake.set(jobs=[fake.job("101", "RUNNING", "somebody-elses")])

    assert Launch(tmp_path, num_cells=1).adopt() == 0


def test_a_forgotten_job_is_replaced_only_after_long_and_cancelled_first(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    launch = Launch(tmp_path, num_cells=1).start()
    fake.set(jobs=[])
    assert launch.polls(60) == []

    assert events(launch.polls(30)) == ["cell0 node_lost"]
    assert fake.num_calls("scancel") == 1
    assert launch.start().job_ids == ["102"]


def test_a_silent_slurm_gets_no_new_jobs_until_it_answers(fake: FakeSlurm, tmp_path: Path) -> None:
    launch = Launch(tmp_path).start()
    fake.set(silent=["squeue"])
    launch.polls(20)
    assert launch.messages == ["Slurm does not answer; jobs go on."]
    assert launch.dispatcher.slots == 3

    fake.set(silent=[])
    launch.polls(20)

    assert launch.messages[-1] == "Slurm answers again."
    assert launch.dispatcher.slots == 100


def test_a_report_ends_a_job_before_slurm_is_asked_and_the_next_job_gets_more_memory(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    launch = Launch(tmp_path).start()
    fake.set(silent=["squeue"])
    launch.end("cell1", "done")
    launch.end("cell2", "out_of_memory")

    assert sorted(events(launch.polls(1))) == ["cell1 done", "cell2 out_of_memory"]
    fake.set(silent=[])
    launch.dispatcher.start(launch.trials[2:])
    script = launch.dispatcher.jobs["cell2"].array.folder / "submission.sh"
    assert "#SBATCH --mem=2048M" in script.read_text()


def test_a_job_that_asked_for_no_memory_and_had_too_little_says_what_to_set(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    launch = Launch(tmp_path, memory_gb=0.0).start()
    launch.end("cell2", "out_of_memory")

    (report,) = launch.polls(1)

    assert report.outcome is not None
    assert "set slurm.memory_gb=N" in report.outcome.error_text


def test_a_job_that_takes_the_next_rung_gets_no_more_memory(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    launch = Launch(tmp_path).start()
    launch.end("cell2", "out_of_memory", next_memory="recompute")
    launch.polls(1)

    launch.dispatcher.start(launch.trials[2:])

    script = launch.dispatcher.jobs["cell2"].array.folder / "submission.sh"
    assert "#SBATCH --mem=1024M" in script.read_text()


def test_a_job_that_begins_is_news_each_time(fake: FakeSlurm, tmp_path: Path) -> None:
    launch = Launch(tmp_path).start()
    job = launch.dispatcher.jobs["cell1"]
    for restart in (0, 1):
        report = JobReport("cell1", job.array.name, "101_1", restart, "n1", "started")
        report.write(launch.dispatcher.registry.reports)

        assert launch.polls(1) == [PoolEvent("cell1", "running")]


def submit_for(launch: Launch, minutes: int) -> None:
    """Let time go by; whatever is put back is submitted again, a minute later."""
    for _ in range(minutes):
        keys = {report.key for report in launch.polls(60) if report.event == "no room"}
        if keys:
            launch.dispatcher.start([trial for trial in launch.trials if trial.key in keys])


@pytest.mark.parametrize(
    "error", ["sbatch: error: QOSMaxSubmitJobPerUserLimit", "sbatch: error: The moon is wrong"]
)
def test_refusals_that_do_not_pass_are_said_after_a_bounded_time(
    fake: FakeSlurm, tmp_path: Path, error: str
) -> None:
    fake.set(error=error)
    launch = Launch(tmp_path, num_cells=1).start()
    assert error in launch.messages[-1]

    submit_for(launch, 25)  # nothing is raised
    with pytest.raises(ValueError, match=f"{error}, for 30 minutes now. Correct "):
        submit_for(launch, 10)


@pytest.mark.parametrize(
    "error", ["sbatch: error: QOSMaxSubmitJobPerUserLimit", "sbatch: error: The moon is wrong"]
)
def test_refusals_that_pass_are_waited_for_and_submit_each_cell_once(
    fake: FakeSlurm, tmp_path: Path, error: str
) -> None:
    fake.set(error=error)
    launch = Launch(tmp_path, num_cells=1).start()
    submit_for(launch, 20)

    fake.set(error="")
    submit_for(launch, 40)

    assert launch.job_ids == ["101"]
    assert launch.polls(1) == []


def test_a_queue_full_of_ones_own_other_jobs_is_waited_for(fake: FakeSlurm, tmp_path: Path) -> None:
    jobs = [fake.job("7", "RUNNING", "another grid")]
    fake.set(error="sbatch: error: QOSMaxSubmitJobPerUserLimit", jobs=jobs)

    submit_for(Launch(tmp_path, num_cells=1).start(), 35)  # nothing is raised


def test_a_job_that_can_never_be_is_refused_with_what_to_change(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    fake.set(error="sbatch: error: QOSMaxWallDurationPerJobLimit")

    with pytest.raises(ValueError, match=r"Correct slurm[.]minutes or slurm[.]qos;"):
        Launch(tmp_path).start()


def calls(fake: FakeSlurm) -> list[list[str | None]]:
    """All calls of Slurm's programs."""
    made = fake.state["calls"]
    assert isinstance(made, list)
    return made


def two_hours_left() -> Allowance:
    """A budget of three hours, of which one is spent and two cells have the others."""
    keys = ("cell0", "cell1")
    seconds, held = dict.fromkeys(keys, 3600.0), dict.fromkeys(keys, 1.0)
    limit = Allowance("budget=3h", 3 * 3600.0, seconds=seconds, held=held, spent=3600.0)
    for key in keys:
        limit.took(key)
    return limit


def test_the_last_waiting_job_is_cancelled_when_others_took_longer_than_expected(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    limit = two_hours_left()
    launch = Launch(tmp_path, num_cells=2, limit=limit).start()
    (first, second) = launch.job_ids
    assert launch.polls(20) == []

    limit.spent += 1.0
    news: list[str] = []
    while not news:
        news = events(launch.polls(1))
    limit.ended("cell1")  # as the queue does
    news += events(launch.polls(20))

    assert news == ["cell1 no room"]
    assert ["scancel", second] in calls(fake)
    assert launch.job_ids == [first]


def test_at_a_limit_waiting_jobs_are_cancelled_and_running_ones_end_for_good(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    launch = Launch(tmp_path, num_cells=2, limit=two_hours_left()).start()
    (first, second) = launch.job_ids
    jobs = [fake.job(str(first), "RUNNING"), fake.job(str(second), "PENDING")]
    fake.set(jobs=jobs)
    launch.polls(20)
    assert fake.num_calls("scancel") == 0

    launch.must_end = True
    launch.polls(2)
    launch.end("cell0", "stopped")

    assert events(launch.polls(20)) == ["cell0 stopped"]
    assert ["scancel", second] in calls(fake)
    assert launch.dispatcher.registry.stop_file.exists()
    launch.adopt()
    assert not launch.dispatcher.registry.stop_file.exists()


def test_a_preempted_job_takes_nothing_while_it_waits(fake: FakeSlurm, tmp_path: Path) -> None:
    limit = two_hours_left()
    launch = Launch(tmp_path, num_cells=1, limit=limit).start()
    launch.polls(2)
    limit.began("cell0")

    job = launch.dispatcher.jobs["cell0"]
    stopped = JobReport(
        "cell0", job.array.name, str(job.job_id), 0, "n1", "ended", Outcome("stopped")
    )
    stopped.write(launch.dispatcher.registry.reports)
    launch.polls(2)

    used = limit.spent - 3600.0
    assert used > 0.0
    limit.ended("cell0")
    assert limit.spent == 3600.0 + used


def test_a_job_that_was_killed_without_a_word_is_asked_for_at_once(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    launch = Launch(tmp_path, num_cells=1).start()
    launch.dispatcher.monitor.longest_seconds = 5000.0
    fake.set(jobs=[fake.job("101", "RUNNING")])
    launch.polls(200)
    before = fake.num_calls("squeue")

    failure_mark(launch.dispatcher.jobs["cell0"].array.folder).touch()
    fake.set(jobs=[fake.job("101", "OUT_OF_MEMORY")])
    news = launch.polls(60)

    assert events(news) == ["cell0 out_of_memory"]
    assert fake.num_calls("squeue") - before <= 6
