"""What runs next, and what runs again."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.execution.queue import Queue, by_length
from orchestrator.failures import Failure
from orchestrator.trial import Outcome, Trial

DONE = Outcome("done", 1, is_published=True)


@dataclass
class Seen:
    """A listener that remembers."""

    starts: list[str] = field(default_factory=list)
    ends: list[tuple[str, str, bool]] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)

    def started(self, trial: Trial) -> None:
        self.starts.append(trial.key)

    def ended(self, trial: Trial, outcome: Outcome, *, retried: bool) -> None:
        self.ends.append((trial.key, outcome.status, retried))


def trial(key: str, root: str = "/nowhere") -> Trial:
    return Trial(key, "{}", "f", root, "inline", "/nowhere/stop")


def queue_of(*keys: str, seen: Seen, slots: int = 1, stopping: list[int] | None = None) -> Queue:
    return Queue(
        waiting=[trial(key) for key in keys],
        slots=slots,
        listener=seen,
        give_up=lambda trial, _: seen.given_up.append(trial.key),
        is_stopping=lambda: bool(stopping),
    )


def failed(failure: Failure, *, published: bool = False) -> Outcome:
    return Outcome("failed", 1, failure.value, "why", is_published=published)


def test_no_more_trials_run_than_there_are_places() -> None:
    queue = queue_of("a", "b", "c", seen=Seen(), slots=2)

    assert [queue.take(), queue.take(), queue.take()] == [trial("a"), trial("b"), None]
    queue.settle("a", DONE)
    assert queue.take() == trial("c")


def test_a_lost_trial_runs_again_before_the_others() -> None:
    seen = Seen()
    queue = queue_of("a", "b", seen=seen)

    queue.take()
    queue.settle("a", Outcome.lost("killed"))

    assert queue.take() == trial("a")
    assert seen.ends == [("a", "failed", True)]
    assert seen.given_up == []


def test_a_trial_that_is_lost_again_and_again_is_given_up_with_a_row() -> None:
    seen = Seen()
    queue = queue_of("a", seen=seen)

    while queue.take() is not None:
        queue.settle("a", Outcome.lost("killed"))

    assert len(seen.starts) == 6
    assert seen.given_up == ["a"]
    assert queue.keys("failed") == ["a"]
    assert queue.is_over


def test_a_bug_is_final_and_its_row_is_not_published_twice() -> None:
    seen = Seen()
    queue = queue_of("a", seen=seen)

    queue.take()
    queue.settle("a", failed(Failure.bug, published=True))

    assert queue.is_over
    assert seen.given_up == []


def test_a_full_disk_starts_nothing_more() -> None:
    queue = queue_of("a", "b", "c", seen=Seen(), slots=2)
    queue.take()
    queue.take()

    queue.settle("a", failed(Failure.disk_full))

    assert queue.take() is None
    assert not queue.is_over
    queue.settle("b", DONE)
    assert queue.is_over


def test_a_disk_too_full_for_the_row_still_ends_the_cell_as_failed() -> None:
    def refuse(trial: Trial, outcome: Outcome) -> None:
        raise OSError(28, "No space left on device")

    queue = queue_of("a", "b", seen=Seen())
    queue.give_up = refuse
    queue.take()

    queue.settle("a", failed(Failure.disk_full))

    assert queue.keys("failed") == ["a"]
    assert queue.is_over


def test_a_stop_starts_nothing_more_and_waits_for_what_runs() -> None:
    stopping: list[int] = []
    queue = queue_of("a", "b", seen=Seen(), stopping=stopping)
    queue.take()

    stopping.append(2)

    assert queue.take() is None
    assert not queue.is_over
    queue.settle("a", Outcome("stopped", 1))
    assert queue.is_over


def test_tables_come_first_and_within_a_table_the_longest_cell() -> None:
    trials = [trial(key) for key in "abcd"]
    seconds = {"a": 1.0, "b": 9.0, "c": 5.0, "d": 7.0}

    order = by_length(trials, seconds, {"a": 0, "b": 1, "c": 0, "d": 1})

    assert [found.key for found in order] == ["c", "a", "b", "d"]


@given(
    st.lists(st.sampled_from(["done", "lost", "bug", "stopped", "busy"]), max_size=60),
    st.integers(1, 4),
)
def test_whatever_happens_every_cell_ends_exactly_once(answers: list[str], slots: int) -> None:
    seen = Seen()
    queue = queue_of("a", "b", "c", "d", seen=seen, slots=slots)
    script = iter(answers)

    while not queue.is_over:
        while queue.take() is not None:
            assert len(queue.running) <= slots
        key = next(iter(queue.running))
        answer = next(script, "done")
        made = {"lost": Outcome.lost("x"), "bug": failed(Failure.bug, published=True)}
        queue.settle(key, made.get(answer) or Outcome(answer, 1))  # type: ignore[arg-type]

    assert sorted(queue.outcomes) == ["a", "b", "c", "d"]
    assert sorted(key for key, _, retried in seen.ends if not retried) == ["a", "b", "c", "d"]


def test_a_trial_and_an_outcome_travel_as_text(tmp_path: Path) -> None:
    sent = trial("a", str(tmp_path))

    assert Trial.from_json(sent.to_json()) == sent
    assert Outcome.from_json(DONE.to_json()) == DONE
    with pytest.raises(ValueError, match="Expecting value"):
        Trial.from_json("no text of ours")
