"""Workers that share a grid with each other and with launches, without a controller."""

import os
import signal

import pytest

from orchestrator.worker import seconds_of
from tests.support.lab import KL, SUPERVISED, UNIMATCH, Lab, kill_all, wait_until

Weights = dict[str, tuple[str | None, float | None]]


def first_running(lab: Lab) -> str:
    """Wait until a process has one of the long cells; its key."""

    def key() -> str:
        states = lab.opened.states([UNIMATCH, KL])
        return next((key for key, state in states.items() if state.owner is not None), "")

    return wait_until(key)


def test_two_workers_at_once_run_each_cell_once_and_give_the_rows_of_a_launch(
    long_lab: Lab, undisturbed: Weights
) -> None:
    workers = [long_lab.start("work"), long_lab.start("work")]

    texts = [worker.communicate(timeout=300)[0] for worker in workers]

    assert [worker.returncode for worker in workers] == [0, 0], texts
    assert long_lab.weights() == undisturbed
    for key in (UNIMATCH, KL):
        assert [entry["event"] for entry in long_lab.events(key)] == ["started", "done"]
    assert {long_lab.events(key)[0]["pid"] for key in (UNIMATCH, KL)} == {w.pid for w in workers}


def test_a_worker_leaves_the_cell_of_a_launch_alone_until_the_launch_is_killed(
    long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch", "backend=inline")
    key = first_running(long_lab)
    trains = long_lab.worker_at(key, step=3)
    os.kill(trains, signal.SIGSTOP)  # it keeps its locks, of the cell and of the grid

    text = long_lab.run("work")  # nothing waits: it leaves the rest to the launch

    assert "1 done, 1 running of 2 cells" in text
    assert long_lab.attempts(key) == 1
    second = long_lab.start("work", "while_idle=5m")
    kill_all(launch)
    text, _ = second.communicate(timeout=300)
    assert second.returncode == 0, text
    assert [entry["event"] for entry in long_lab.events(key)] == ["started", "started", "done"]
    assert long_lab.events(key)[1]["pid"] == second.pid
    assert long_lab.weights() == undisturbed


def test_a_signal_lets_a_worker_checkpoint_and_leave(long_lab: Lab) -> None:
    worker = long_lab.start("work", "while_idle=5m")
    key = first_running(long_lab)
    long_lab.worker_at(key, step=3)

    os.killpg(worker.pid, signal.SIGTERM)
    text, _ = worker.communicate(timeout=300)

    assert worker.returncode == 10, text
    assert [entry["event"] for entry in long_lab.events(key)] == ["started", "stopped"]
    assert sorted(long_lab.states().values()) == ["interrupted", "missing"]
    assert not list((long_lab.root / "grids" / "tiny").glob("stop-*"))


def test_a_cell_that_failed_for_good_is_left_to_a_launch(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))
    diverges = ("optim.lr=1000", "optim.epochs=8")

    text = lab.run("work", *diverges, code=11)
    again = lab.run("work", *diverges, code=11)

    assert "diverged" in text
    assert "start " not in again
    assert lab.attempts(SUPERVISED) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backend=slurm"], "a worker runs cells in its own process"),
        (["rerun=all"], "a worker runs nothing again that is done"),
        (["ranks=2"], "ignores ranks=2"),
        (["while_idle=10"], "give a time such as 90s, 10m or 2h"),
    ],
)
def test_what_a_worker_cannot_do_is_refused_before_anything_is_written(
    lab: Lab, words: list[str], message: str
) -> None:
    lab.write_grid(("supervised_star", "none"))

    text = lab.run("work", *words, code=2)

    assert message in text
    assert not lab.root.exists()


def test_times_are_read_with_their_units() -> None:
    assert [seconds_of(text) for text in ("90s", "10m", "1.5h")] == [90.0, 600.0, 5400.0]
