"""A run that stands still is ended, says where it stood, and goes on from its checkpoint."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from orchestrator.execution.watchdog import HangWatch
from tests.support.hanging_trainer import HANGS, Blocked, in_midst_of_steps
from tests.support.lab import KL, LONGEST_SECONDS, Lab, rank_processes, wait_until

Weights = dict[str, tuple[str | None, float | None]]


def watched(folder: Path, floor_seconds: float = 1.0) -> tuple[HangWatch, threading.Event]:
    reported = threading.Event()
    return HangWatch(floor_seconds, lambda text: reported.set(), folder / "log"), reported


def test_steps_that_stay_away_are_a_hang_and_their_place_is_told(tmp_path: Path) -> None:
    watch, reported = watched(tmp_path, floor_seconds=0.2)
    with watch.watching():
        watch.heartbeat("step")
        wait_until(reported.is_set)

    assert "after 1 steps of this attempt (step)" in watch.problem
    text = (tmp_path / "log").read_text()
    assert "Hang: no progress for" in text
    assert "test_steps_that_stay_away" in text


def test_a_run_that_moves_again_while_its_stacks_are_told_goes_on(tmp_path: Path) -> None:
    watch, reported = watched(tmp_path)
    with watch.watching():
        watch.heartbeat("step")
        wait_until((tmp_path / "log").exists)
        watch.heartbeat("step")
        wait_until(lambda: "It moved again." in (tmp_path / "log").read_text())

    assert not watch.problem
    assert not reported.is_set()


def test_what_breaks_while_the_stacks_are_told_is_still_a_hang(tmp_path: Path) -> None:
    watch, reported = watched(tmp_path)
    with watch.watching():
        watch.heartbeat("step")
        wait_until((tmp_path / "log").exists)

    wait_until(lambda: not any(thread.name == "hang watch" for thread in threading.enumerate()))
    assert "no progress for" in watch.problem
    assert not reported.is_set()


def test_the_bound_grows_with_the_steps_of_the_run_itself(tmp_path: Path) -> None:
    watch, _ = watched(tmp_path, floor_seconds=0.01)
    for _ in range(4):
        watch.heartbeat("step")
        time.sleep(0.1)
    watch.heartbeat("step")

    assert watch.bound_seconds() >= 20 * 0.1


@pytest.mark.parametrize("phase", ["evaluation", "checkpoint"])
def test_what_takes_long_by_nature_may_take_long(tmp_path: Path, phase: str) -> None:
    watch, _ = watched(tmp_path)
    assert watch.bound_seconds() == 600.0  # nothing was done yet
    watch.heartbeat("step")
    assert watch.bound_seconds() == 1.0
    watch.heartbeat(phase)
    assert watch.bound_seconds() == 6.0


def event_names(lab: Lab) -> list[str]:
    return [line["event"] for line in lab.events(KL)]


@pytest.mark.long
def test_a_loader_that_blocks_in_this_process_is_interrupted_and_tried_again(
    blocked: Blocked, undisturbed: Weights
) -> None:
    launch = blocked.lab.start("launch", "backend=inline", "only=*.kl.*", *HANGS)
    blocked.block()
    assert blocked.tells("in read_bytes")
    blocked.free()
    text, _ = launch.communicate(timeout=LONGEST_SECONDS)

    assert launch.returncode == 0, text
    assert f"retry    {KL}" in text
    assert "hang: Hang: no progress for" in text
    assert event_names(blocked.lab) == ["started", "failed", "started", "done"]
    assert blocked.lab.weights()[KL] == undisturbed[KL]


@pytest.mark.ray
@pytest.mark.long
def test_a_loader_that_blocks_on_ray_is_killed_and_tried_again(
    blocked: Blocked, undisturbed: Weights
) -> None:
    launch = blocked.lab.start("launch", "only=*.kl.*", *HANGS)
    blocked.block()
    assert blocked.tells("in read_bytes")
    blocked.free()
    text, _ = launch.communicate(timeout=LONGEST_SECONDS)

    assert launch.returncode == 0, text
    assert re.search("hang: (Hang: )?no progress for", text)
    assert event_names(blocked.lab) == ["started", "failed", "started", "done"]
    assert blocked.lab.weights()[KL] == undisturbed[KL]


@pytest.mark.ray
@pytest.mark.long
def test_ranks_of_which_one_stops_in_a_collective_are_killed_and_tried_again(
    long_lab: Lab, torchrun_weights: str
) -> None:
    launch = long_lab.start("launch", "ranks=2", "only=*.kl.*", *HANGS)
    first = in_midst_of_steps(long_lab)
    others = [pid for pid in rank_processes(launch.pid) if pid != first]
    assert len(others) == 1
    os.kill(others[0], signal.SIGSTOP)
    text, _ = launch.communicate(timeout=LONGEST_SECONDS)

    assert launch.returncode == 0, text
    assert re.search("hang: (Hang: )?no progress for", text)
    assert "all_gather" in long_lab.opened.run(KL).log(1).read_text()
    assert long_lab.rows()[KL].weights_sha256 == torchrun_weights
    wait_until(lambda: not Path("/proc", str(others[0])).exists())
