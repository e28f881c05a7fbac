"""What a back end offers to a launch, the loop that feeds it, and how one more is added."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.__main__ import main
from orchestrator.backends.base import LaunchContext, Pool, PoolEvent, run_queue
from orchestrator.display.screen import Screen
from orchestrator.execution.queue import Queue
from orchestrator.execution.stop import CELLS_END, Stop
from orchestrator.options import BACKENDS
from orchestrator.storage.open import open_root
from orchestrator.trial import Outcome, Trial
from tests.support.lab import KL, SUPERVISED, Lab

DONE = Outcome("done", 1, is_published=True)
detaches = False  # of this module as a back end, see `pools`
ignores: tuple[str, ...] = ()


class Countdown(Pool):
    """A pool whose cells do nothing for some polls.

    Args:
        polls: until a cell is done; 0 never ends.
        room: cells that fit in all; the others are sent back, and then fit.
        early: cells that an earlier launch left here.
    """

    def __init__(
        self, polls: int = 1, room: int = 9, *, detaches: bool = False, early: Collection[str] = ()
    ) -> None:
        self.slots = 2
        self.detaches = detaches
        self._polls = polls
        self._room = room
        self._early = early
        self._left: dict[str, int] = {}
        self._news: list[PoolEvent] = []
        self.started: list[str] = []

    def adopt(self, waiting: Sequence[Trial]) -> Collection[str]:
        self._left |= dict.fromkeys(self._early, self._polls)
        return self._early

    def start(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            if len(self.started) < self._room:
                self.started.append(trial.key)
                self._left[trial.key] = self._polls
                self._news.append(PoolEvent(trial.key, "running"))
            else:
                self._news.append(PoolEvent(trial.key, "no room"))
                self._room += 1

    def poll(self) -> list[PoolEvent]:
        self._left = {key: left - 1 for key, left in self._left.items()}
        ended = [PoolEvent(key, "ended", DONE) for key, left in self._left.items() if left == 0]
        for report in ended:
            del self._left[report.key]
        news, self._news = [*self._news, *ended], []
        return news


class AtOnce(Countdown):
    """A pool whose cells have ended by the first look, as those of an inline launch."""

    def start(self, trials: Sequence[Trial]) -> None:
        super().start(trials)
        self._news += [PoolEvent(trial.key, "ended", DONE) for trial in trials]


def drained(root: Path, *pools: Pool, lost_after: int = 1000) -> tuple[Queue, str]:
    """Run the cells a, b, c and d; the grid is lost after so many looks."""
    looks = iter(range(lost_after))
    printed = StringIO()
    opened = open_root(str(root))
    screen = Screen(Console(file=printed, width=200), opened)
    stop = Stop(
        opened,
        root / "stop",
        text=CELLS_END,
        on_message=screen.message,
        is_lost=lambda: next(looks, None) is None,
    )
    trials = [Trial(key, "{}", "f", str(root), "inline", "") for key in "abcd"]
    queue = Queue(trials, listener=screen, give_up=lambda trial, outcome: None)
    run_queue(queue, pools, stop, screen)
    return queue, printed.getvalue()


def test_every_cell_is_run_once_in_order_and_shown(tmp_path: Path) -> None:
    pool = Countdown()

    queue, text = drained(tmp_path, pool)

    assert pool.started == queue.keys("done") == ["a", "b", "c", "d"]
    assert [text.count(word) for word in ("start ", "done ")] == [4, 4]


def test_a_loop_that_has_news_does_not_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("orchestrator.backends.base.time.sleep", pauses.append)

    queue, _ = drained(tmp_path, AtOnce(polls=0))

    assert queue.keys("done") == ["a", "b", "c", "d"]
    assert len(pauses) == 1  # before the first cell


def test_a_cell_without_room_waits_and_is_started_again(tmp_path: Path) -> None:
    pool = Countdown(room=1)

    queue, text = drained(tmp_path, pool)

    assert sorted(queue.keys("done")) == ["a", "b", "c", "d"]
    assert text.count("start ") == 4


def test_what_an_earlier_launch_left_is_not_started_again(tmp_path: Path) -> None:
    pool = Countdown(early=["b", "c"])

    queue, _ = drained(tmp_path, pool)

    assert pool.started == ["a", "d"]
    assert sorted(queue.keys("done")) == ["a", "b", "c", "d"]


def test_of_two_pools_the_first_one_is_filled_first(tmp_path: Path) -> None:
    first, second = Countdown(polls=3), Countdown(polls=3)

    drained(tmp_path, first, second)

    assert (first.started, second.started) == (["a", "b"], ["c", "d"])


def test_after_a_stop_cells_of_this_launch_are_waited_for_and_no_other_starts(
    tmp_path: Path,
) -> None:
    pool = Countdown(polls=6)

    queue, _ = drained(tmp_path, pool, lost_after=2)

    assert pool.started == queue.keys("done") == ["a", "b"]
    assert [trial.key for trial in queue.waiting] == ["c", "d"]


def test_after_a_stop_cells_that_go_on_by_themselves_are_left(tmp_path: Path) -> None:
    ends, goes_on = Countdown(polls=6), Countdown(polls=0, detaches=True)

    queue, _ = drained(tmp_path, ends, goes_on, lost_after=2)

    assert queue.keys("done") == ["a", "b"]
    assert goes_on.started == ["c", "d"]
    assert queue.num_running(goes_on) == 2


@pytest.fixture
def words(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A launch of two cells on a back end that is one file and one line of the registry."""
    monkeypatch.setitem(BACKENDS, "processes", "tests.support.process_backend")
    lab.write_grid(("supervised_star", "none"), ("unimatch_star", "kl"))
    return ["launch", str(lab.grid), *lab.words, "concurrency=2"]


@pytest.mark.long
def test_a_back_end_is_added_by_one_file_and_one_line(
    lab: Lab, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "backend=processes"]) == 0

    assert "2 done of 2 cells" in capsys.readouterr().out
    rows = lab.rows()
    assert {key: row.status for key, row in rows.items()} == {KL: "done", SUPERVISED: "done"}
    assert {row.backend for row in rows.values()} == {"processes"}


@contextmanager
def pools(context: LaunchContext) -> Iterator[Sequence[Pool]]:
    """This module as a back end, which starts nothing and says what it was asked for."""
    asked = {(trial.cpus_per_rank, trial.cpus_beside_gpu) for trial in context.trials}
    raise ValueError(f"cores without and with a GPU: {asked}")
    yield []


def test_a_launch_hands_over_how_many_cores_each_cell_needs(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(BACKENDS, "asked", __name__)

    assert main([*words, "backend=asked", "run.threads=2"]) == 2

    assert "cores without and with a GPU: {(2, 3)}" in capsys.readouterr().err


def test_an_unknown_back_end_is_refused_with_the_names_that_are_known(
    lab: Lab, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "backend=cloud"]) == 2

    assert "known are ray, inline, slurm, auto, processes" in capsys.readouterr().err
    assert not lab.root.exists()
