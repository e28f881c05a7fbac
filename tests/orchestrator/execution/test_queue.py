"""What runs next, and what runs again."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.execution.queue import Queue, in_start_order
from orchestrator.failures import Failure
from orchestrator.trial import Outcome, Trial
from trainer.config.compose import from_json
from trainer.config.fingerprint import config_json
from trainer.config.schema import Graph, Memory, RunConfig, TrainConfig
from trainer.config.validation import check

DONE = Outcome("done", 1, is_published=True)


@dataclass
class Listening:
    """A listener that remembers."""

    starts: list[str] = field(default_factory=list)
    ends: list[tuple[str, str, bool]] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    returns: list[str] = field(default_factory=list)

    def started(self, trial: Trial) -> None:
        self.starts.append(trial.key)

    def ended(self, trial: Trial, outcome: Outcome, *, retried: bool) -> None:
        self.ends.append((trial.key, outcome.status, retried))

    def put_back(self, trial: Trial) -> None:
        self.returns.append(trial.key)

    def give_up(self, trial: Trial, outcome: Outcome) -> None:
        self.given_up.append(trial.key)


@dataclass(eq=False)
class Place:
    """Somewhere cells of some keys can run."""

    slots: int = 1
    keys: str = "abcd"
    name: str = "inline"

    def accepts(self, trial: Trial) -> bool:
        return trial.key in self.keys

    def prepare(self, trial: Trial) -> Trial:
        return replace(trial, backend=self.name)


def trial(key: str, root: str = "/nowhere") -> Trial:
    return Trial(key, "{}", "f", root, "inline", "/nowhere/stop")


def queue_of(keys: str, listener: Listening | None = None) -> Queue:
    listener = listener or Listening()
    return Queue([trial(key) for key in keys], listener=listener, give_up=listener.give_up)


def taken(queue: Queue, pool: Place) -> str:
    """Keys of the cells that a pool gets now."""
    return "".join(trial.key for trial in queue.take(pool))


def waiting(queue: Queue) -> str:
    return "".join(trial.key for trial in queue.waiting)


def failed(failure: Failure, *, published: bool = False) -> Outcome:
    return Outcome("failed", 1, failure.value, "why", is_published=published)


def test_no_more_trials_run_than_there_are_slots() -> None:
    queue, pool = queue_of("abc"), Place(slots=2)

    assert taken(queue, pool) == "ab"
    assert taken(queue, pool) == ""
    queue.finish("a", DONE)
    assert taken(queue, pool) == "c"


@dataclass(eq=False)
class CountingPlace(Place):
    """A place that counts what it is asked."""

    asked: int = 0

    def accepts(self, trial: Trial) -> bool:
        self.asked += 1
        return True


def test_a_poll_looks_at_no_more_waiting_cells_than_there_are_free_slots() -> None:
    place = CountingPlace(slots=2)
    listener = Listening()
    cells = [trial(f"cell{number}") for number in range(1000)]
    queue = Queue(cells, listener=listener, give_up=listener.give_up)

    assert [taken.key for taken in queue.take(place)] == ["cell0", "cell1"]
    assert queue.take(place) == []
    queue.finish("cell0", DONE)
    assert [taken.key for taken in queue.take(place)] == ["cell2"]

    assert place.asked == 3
    assert queue.num_waiting == 997


def test_a_lost_trial_runs_again_before_the_others() -> None:
    listener, pool = Listening(), Place()
    queue = queue_of("ab", listener)

    queue.take(pool)
    queue.finish("a", Outcome.lost("killed"))

    assert taken(queue, pool) == "a"
    assert listener.ends == [("a", "failed", True)]
    assert listener.given_up == []


def test_a_trial_that_is_lost_again_and_again_is_given_up_with_a_row() -> None:
    listener, pool = Listening(), Place()
    queue = queue_of("a", listener)

    while queue.take(pool):
        queue.start("a")
        queue.finish("a", Outcome.lost("killed"))

    assert len(listener.starts) == 6
    assert listener.given_up == ["a"]
    assert queue.keys("failed") == ["a"]
    assert queue.is_over([pool])


def test_a_trial_without_memory_takes_each_rung_once_and_then_ends() -> None:
    listener, pool, rungs = Listening(), Place(), []
    config = config_json(TrainConfig())
    first = replace(trial("a"), config_json=config)
    queue = Queue([first], listener=listener, give_up=listener.give_up)
    following = {"full": "recompute", "recompute": "offload", "offload": ""}

    while taken := queue.take(pool):
        rungs.append(json.loads(taken[0].config_json)["run"]["memory"])
        outcome = failed(Failure.out_of_memory)
        queue.finish("a", replace(outcome, next_memory=following[rungs[-1]]))

    assert rungs == ["full", "recompute", "offload", "offload"]
    assert listener.given_up == ["a"]
    assert config_json(from_json(first.with_memory("full").config_json)) == config


def test_a_rung_that_cannot_be_captured_is_taken_without_graphs() -> None:
    run = RunConfig(graph=Graph.step)
    first = replace(trial("a"), config_json=config_json(TrainConfig(run=run)))

    rungs = [from_json(first.with_memory(rung.value).config_json) for rung in Memory]

    assert [check(config).run.graph for config in rungs] == [Graph.step, Graph.step, Graph.none]


def test_with_retries_0_no_rung_is_taken() -> None:
    pool = Place()
    queue = Queue([trial("a")], listener=Listening(), give_up=lambda *_: None, retries=0)
    queue.take(pool)

    queue.finish("a", replace(failed(Failure.out_of_memory), next_memory="recompute"))

    assert queue.keys("failed") == ["a"]


def test_a_bug_is_final_and_its_row_is_not_published_twice() -> None:
    listener, pool = Listening(), Place()
    queue = queue_of("a", listener)

    queue.take(pool)
    queue.finish("a", failed(Failure.bug, published=True))

    assert queue.is_over([pool])
    assert listener.given_up == []


def test_a_full_disk_starts_nothing_more() -> None:
    queue, pool = queue_of("abc"), Place(slots=2)
    queue.take(pool)

    queue.finish("a", failed(Failure.disk_full))

    assert queue.take(pool) == []
    assert queue.closed_because == "why"
    assert not queue.is_over([pool])
    queue.finish("b", DONE)
    assert queue.is_over([pool])


def test_a_disk_too_full_for_the_row_still_ends_the_cell_as_failed() -> None:
    def refuse(trial: Trial, outcome: Outcome) -> None:
        raise OSError(28, "No space left on device")

    pool = Place()
    queue = Queue([trial("a"), trial("b")], listener=Listening(), give_up=refuse)
    queue.take(pool)

    queue.finish("a", failed(Failure.disk_full))

    assert queue.keys("failed") == ["a"]
    assert queue.is_over([pool])


def test_a_stop_starts_nothing_more_and_waits_for_what_runs() -> None:
    queue, pool = queue_of("ab"), Place()
    queue.take(pool)

    queue.close()

    assert queue.take(pool) == []
    assert not queue.is_over([pool])
    queue.finish("a", Outcome("stopped", 1))
    assert queue.is_over([pool])
    assert queue.closed_because == ""


def test_each_pool_gets_the_cells_that_it_accepts_as_far_as_it_has_slots() -> None:
    queue = queue_of("abcd")
    ray, slurm = Place(slots=1, keys="ac", name="ray"), Place(slots=9, keys="abc", name="slurm")

    assert [t.backend for t in queue.take(ray)] == ["ray"]
    assert [t.backend for t in queue.take(slurm)] == ["slurm", "slurm"]

    assert waiting(queue) == "d"
    assert not queue.is_over([ray, slurm])
    for key in "abc":
        queue.finish(key, DONE)
    assert queue.is_over([ray, slurm])  # nobody accepts d


def test_a_cell_that_failed_in_one_pool_may_be_tried_in_another() -> None:
    queue = queue_of("a")
    ray, slurm = Place(name="ray"), Place(name="slurm")

    queue.take(slurm)
    queue.finish("a", Outcome.lost("killed"))

    assert queue.take(ray) == [replace(trial("a"), backend="ray")]


def test_cells_put_back_in_reverse_wait_in_their_order_and_may_go_elsewhere() -> None:
    listener = Listening()
    queue, full, other = queue_of("abcd", listener), Place(slots=3), Place(slots=4, name="ray")
    queue.take(full)

    for key in "cba":
        queue.put_back(key)

    assert waiting(queue) == "abcd"
    assert taken(queue, other) == "abcd"
    assert (listener.starts, listener.ends) == ([], [])
    assert listener.returns == ["c", "b", "a"]


def test_cells_of_an_earlier_launch_count_as_running_even_beyond_the_slots() -> None:
    queue, pool = queue_of("abcd"), Place(slots=1)

    queue.adopt(pool, {"b", "d"})

    assert waiting(queue) == "ac"
    assert queue.num_running(pool) == 2
    assert queue.take(pool) == []
    queue.finish("b", DONE)
    queue.finish("d", DONE)
    assert taken(queue, pool) == "a"


def test_tables_come_first_and_within_a_table_the_longest_cell() -> None:
    trials = [trial(key) for key in "abcd"]
    seconds = {"a": 1.0, "b": 9.0, "c": 5.0, "d": 7.0}

    order = in_start_order(trials, seconds, {"a": 0, "b": 1, "c": 0, "d": 1})

    assert [trial.key for trial in order] == ["c", "a", "b", "d"]


@given(
    st.lists(st.sampled_from(["done", "lost", "bug", "stopped", "busy"]), max_size=60),
    st.integers(1, 4),
)
def test_whatever_happens_every_cell_ends_exactly_once(answers: list[str], slots: int) -> None:
    listener, pool = Listening(), Place(slots=slots)
    queue = queue_of("abcd", listener)
    script = iter(answers)
    running: list[str] = []

    while not queue.is_over([pool]):
        running += taken(queue, pool)
        assert queue.num_running(pool) == len(running) <= slots
        key = running.pop(0)
        answer = next(script, "done")
        made = {"lost": Outcome.lost("x"), "bug": failed(Failure.bug, published=True)}
        queue.finish(key, made.get(answer) or Outcome(answer, 1))  # type: ignore[arg-type]

    ended = [key for status in ("done", "failed", "stopped", "busy") for key in queue.keys(status)]
    assert sorted(ended) == ["a", "b", "c", "d"]
    assert sorted(key for key, _, retried in listener.ends if not retried) == ["a", "b", "c", "d"]


def test_a_trial_and_an_outcome_travel_as_text(tmp_path: Path) -> None:
    sent = trial("a", str(tmp_path))

    assert Trial.from_json(sent.to_json()) == sent
    assert Outcome.from_json(DONE.to_json()) == DONE
    with pytest.raises(ValueError, match="Expecting value"):
        Trial.from_json("no text of ours")
