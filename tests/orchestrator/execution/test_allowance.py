"""Which cells a budget lets start, and when it is used up."""

import math
import time

import pytest

from orchestrator.execution.allowance import Allowance
from orchestrator.execution.queue import Queue
from orchestrator.trial import Outcome, Trial

HOUR = 3600.0
DONE = Outcome("done", 1, is_published=True)


class Silent:
    """A listener that shows nothing."""

    def started(self, trial: Trial) -> None: ...

    def ended(self, trial: Trial, outcome: Outcome, *, retried: bool) -> None: ...

    def put_back(self, trial: Trial) -> None: ...


class Slots:
    """A pool with room for every cell."""

    slots = 9

    def accepts(self, trial: Trial) -> bool:
        return True

    def prepare(self, trial: Trial) -> Trial:
        return trial


def allowance(hours: float, *, until: float = math.inf, **lengths: float) -> Allowance:
    """Of so many hours; each cell holds two GPUs for its length in hours."""
    seconds = {key: HOUR * length for key, length in lengths.items()}
    held = dict.fromkeys("abcd", 2.0)
    return Allowance("budget", HOUR * hours, until, seconds=seconds, held=held)


def queue_of(keys: str, limit: Allowance) -> Queue:
    trials = [Trial(key, "{}", "f", "/nowhere", "inline", "/nowhere/stop") for key in keys]
    return Queue(trials, listener=Silent(), give_up=lambda *_: None, limit=limit)


def taken(queue: Queue, pool: Slots) -> str:
    return "".join(trial.key for trial in queue.take(pool))


def test_a_cell_that_would_pass_the_budget_is_left_and_a_shorter_one_after_it_starts() -> None:
    pool, queue = Slots(), queue_of("abc", allowance(11.0, a=3, b=3, c=2))

    assert taken(queue, pool) == "ac"
    assert not queue.is_over([pool])


def test_a_cell_that_was_faster_than_expected_makes_room() -> None:
    pool, queue = Slots(), queue_of("ab", allowance(11.0, a=3, b=3))

    assert taken(queue, pool) == "a"
    queue.start("a")
    queue.finish("a", DONE)

    assert taken(queue, pool) == "b"


def test_a_queue_is_over_when_nothing_runs_and_nothing_fits() -> None:
    pool, queue = Slots(), queue_of("ab", allowance(5.0, a=3, b=4))

    assert taken(queue, pool) == ""
    assert queue.is_over([pool])


def test_a_cell_of_unknown_length_starts_while_anything_is_left() -> None:
    limit = allowance(1.0)
    assert limit.fits("a")

    limit.spent = HOUR

    assert not limit.fits("a")


def test_a_cell_that_is_put_back_takes_nothing() -> None:
    limit, pool = allowance(6.0, a=3, b=3), Slots()
    queue = queue_of("a", limit)

    queue.take(pool)
    assert limit.fits("a")  # in a queue of its pool
    assert not limit.fits("b")
    queue.put_back("a")

    assert limit.fits("b")
    assert limit.spent == 0.0


@pytest.mark.parametrize(("hours", "fits"), [(1.0, False), (4.0, True)])
def test_a_cell_that_would_end_after_the_moment_does_not_start(hours: float, fits: bool) -> None:
    limit = allowance(math.inf, until=time.time() + HOUR * hours, a=2)

    assert limit.fits("a") is fits
    assert not limit.is_used_up()


def test_running_cells_use_up_the_budget_by_what_they_hold() -> None:
    limit = allowance(1.0, a=0.25)
    limit.took("a")
    assert not limit.is_used_up()

    limit.spent = HOUR
    assert limit.is_used_up()
    limit.spent = 0.0
    limit.until = time.time() - 1.0
    assert limit.is_used_up()
