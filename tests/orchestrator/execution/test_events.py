"""A command of the user's hears what happens, and can do a launch no harm."""

import json
from pathlib import Path

import pytest

from orchestrator.execution.events import EVENTS_LOG, Events
from orchestrator.trial import Outcome, Trial
from tests.support.lab import EPOCHS, SUPERVISED, Lab

TRIAL = Trial("cell", "{}", "print", "/root", "inline", "/stop")
FACTS = {"grid": "tiny", "root": "/root"}


class Lines:
    """A screen that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str, style: str = "") -> None:
        self.lines.append(text)

    def started(self, trial: Trial) -> None:
        self.message(f"started {trial.key}")

    def put_back(self, trial: Trial) -> None:
        self.message(f"waits {trial.key}")

    def ended(self, trial: Trial, outcome: Outcome, *, retried: bool) -> None:
        self.message(f"{outcome.status} {trial.key}")


def heard(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def failed(text: str, failure: str = "diverged") -> Outcome:
    return Outcome("failed", 1, failure=failure, error_text=text)


def test_a_launch_tells_of_its_first_failure_and_of_its_end(lab: Lab, tmp_path: Path) -> None:
    lab.write_grid(("supervised_star", "none"))
    path = tmp_path / "events.jsonl"
    words = ("optim.lr=1000", "optim.epochs=8", f"on_event=cat >> {path}; echo thanks")

    lab.run("launch", "backend=inline", *words, code=11)

    events = {event["event"]: event for event in heard(path)}
    assert events.keys() == {"first_failure", "finished"}
    assert events["first_failure"]["cell"] == SUPERVISED
    assert events["first_failure"]["failure"] == "diverged"
    assert events["finished"]["exit_code"] == 11
    assert events["finished"]["counts"]["failed"] == 1
    assert {event["grid"] for event in events.values()} == {"tiny"}
    assert (lab.root / "grids" / "tiny" / EVENTS_LOG).read_text().count("thanks\n") == 2


def test_a_worker_tells_of_its_end(lab: Lab, tmp_path: Path) -> None:
    lab.write_grid(("supervised_star", "none"))
    path = tmp_path / "events.jsonl"

    lab.run("work", f"on_event=cat >> {path}")

    (event,) = heard(path)
    assert (event["event"], event["exit_code"], event["text"]) == ("finished", 0, "1 done")


def test_a_launch_tells_that_its_budget_is_reached(lab: Lab, tmp_path: Path) -> None:
    lab.write_grid(("unimatch_star", "none"), epochs=EPOCHS)
    path = tmp_path / "events.jsonl"

    lab.run("launch", "backend=inline", "budget=1s", f"on_event=cat >> {path}", code=10)

    events = {event["event"]: event for event in heard(path)}
    assert events.keys() == {"budget_reached", "finished"}
    assert "budget=1s is reached" in str(events["budget_reached"]["text"])
    assert events["finished"]["exit_code"] == 10


def test_only_the_first_failure_and_every_hang_are_told(tmp_path: Path) -> None:
    path, screen = tmp_path / "events.jsonl", Lines()

    with Events(f"cat >> {path}", FACTS, tmp_path / EVENTS_LOG, screen) as events:
        events.started(TRIAL)
        events.ended(TRIAL, failed("no step", "hang"), retried=True)
        events.ended(TRIAL, Outcome("done", 2), retried=False)
        events.ended(TRIAL, failed("first"), retried=False)
        events.ended(TRIAL, failed("second"), retried=False)
        events.budget_reached("budget=300h is reached")

    told = {str(event["event"]): event for event in heard(path)}
    assert len(heard(path)) == len(told)
    assert told.keys() == {"stalled", "first_failure", "budget_reached"}
    assert (told["stalled"]["text"], told["stalled"]["is_retried"]) == ("no step", True)
    assert told["first_failure"]["text"] == "first"
    assert told["budget_reached"]["text"] == "budget=300h is reached"
    assert screen.lines == [
        "started cell",
        "failed cell",
        "done cell",
        "failed cell",
        "failed cell",
    ]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("echo seen; exit 3", "the command ended with exit code 3"),
        ("echo seen; no_such_program_here", "the command ended with exit code 127"),
        ("echo seen; sleep 600", "the command was killed after 0.5 s"),
        ("echo seen; exec sleep 600 <&-", "the command was killed after 0.5 s"),
    ],
)
def test_a_bad_command_is_one_line_and_ends(command, problem, tmp_path: Path) -> None:
    log, screen = tmp_path / "grid" / EVENTS_LOG, Lines()

    with Events(command, FACTS, log, screen, most_seconds=0.5) as events:
        events.finished(0, {"done": 1})

    assert screen.lines == [f"on_event, finished: {problem}; the launch goes on. Output: {log}"]
    assert json.loads(log.read_text().splitlines()[0])["counts"] == {"done": 1}


def test_a_process_that_the_command_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    log, screen = tmp_path / EVENTS_LOG, Lines()

    with Events("sleep 5 & echo $!", FACTS, log, screen, most_seconds=600) as events:
        events.finished(0, {})

    process = int(log.read_text().splitlines()[-1])
    assert Path(f"/proc/{process}").exists()  # the block ended before it
    assert screen.lines == []


def test_an_error_that_ends_a_launch_is_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    def launch() -> None:
        with Events(f"cat >> {path}", FACTS, tmp_path / EVENTS_LOG, Lines()) as events:
            events.started(TRIAL)
            raise RuntimeError("Ray is gone")

    with pytest.raises(RuntimeError):
        launch()

    (event,) = heard(path)
    assert (event["event"], event["exit_code"], event["text"]) == ("finished", None, "Ray is gone")


def test_nobody_is_told_without_a_command(tmp_path: Path) -> None:
    with Events("", FACTS, tmp_path / EVENTS_LOG, Lines()) as events:
        events.finished(0, {})

    assert not list(tmp_path.iterdir())
