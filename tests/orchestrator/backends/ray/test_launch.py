"""A launch on real local Ray, disturbed in every way; the weights never show it."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.support.lab import (
    BASE,
    KL,
    LONGEST_SECONDS,
    TINY,
    UNIMATCH,
    Lab,
    descendants,
    process_name,
    rank_processes,
    wait_until,
)

pytestmark = pytest.mark.ray
Weights = dict[str, tuple[str | None, float | None]]


def diary(lab: Lab, key: str) -> list[str]:
    return [line["event"] for line in lab.events(key)]


@pytest.fixture
def own_temp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder for the launches of one test alone, with a path short enough for Ray."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def processes_of_ray(temp: Path) -> list[str]:
    """Commands of the processes of every Ray that a launch started in a temporary folder."""
    commands = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = command.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"{temp}/ipix-" in text:
            commands.append(text)
    return commands


def test_a_killed_worker_goes_on_in_the_same_launch_to_the_same_weights(
    long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch")
    worker = long_lab.worker_at(KL, step=4)
    niceness = os.getpriority(os.PRIO_PROCESS, worker) - os.getpriority(os.PRIO_PROCESS, launch.pid)
    os.kill(worker, signal.SIGKILL)
    text, _ = launch.communicate(timeout=LONGEST_SECONDS)

    assert launch.returncode == 0, text
    assert niceness == 0  # Ray's default, 15, starves beside any other work
    assert f"retry    {KL}" in text
    assert diary(long_lab, KL) == ["started", "started", "done"]
    assert long_lab.weights() == undisturbed
    assert {row.backend for row in long_lab.rows().values()} == {"ray"}


def test_a_killed_controller_leaves_nothing_that_hinders_the_next_launch(
    long_lab: Lab, undisturbed: Weights, own_temp: Path
) -> None:
    launch = long_lab.start("launch", "only=*.kl.*")
    long_lab.worker_at(KL, step=4)
    assert processes_of_ray(own_temp)
    os.kill(launch.pid, signal.SIGKILL)  # alone: its Ray and its workers are orphans now

    long_lab.run("launch", "only=*.kl.*")

    launch.communicate()
    assert long_lab.weights() == {KL: undisturbed[KL]}
    assert not list(own_temp.glob("ipix-*"))
    wait_until(lambda: not processes_of_ray(own_temp), seconds=15)


def test_ctrl_c_in_a_terminal_stops_ray_cleanly_and_the_rest_follows_later(
    long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch")
    long_lab.worker_at(UNIMATCH, step=4)
    os.killpg(launch.pid, signal.SIGINT)  # as a terminal does, to the whole group
    text, _ = launch.communicate(timeout=LONGEST_SECONDS)

    assert launch.returncode == 10, text
    assert "Traceback" not in text
    assert diary(long_lab, UNIMATCH) == ["started", "stopped"]
    long_lab.run("launch", "backend=inline")  # any back end goes on from there
    assert long_lab.weights() == undisturbed


def test_sigterm_to_the_whole_group_stops_ray_cleanly_too(long_lab: Lab) -> None:
    launch = long_lab.start("launch", "only=*.kl.*")
    long_lab.worker_at(KL, step=2)
    os.killpg(launch.pid, signal.SIGTERM)  # as timeout and scancel do
    text, _ = launch.communicate(timeout=LONGEST_SECONDS)

    assert launch.returncode == 10, text
    assert diary(long_lab, KL) == ["started", "stopped"]


def process_of_ray(launch: int, name: str) -> int:
    """The process of a launch's own Ray with a name as /proc has it; 0 while there is none."""
    return next((pid for pid in descendants(launch) if process_name(pid) == name), 0)


def test_a_ray_that_dies_twice_is_started_again_to_the_same_weights(
    long_lab: Lab, undisturbed: Weights
) -> None:
    # retries=0: the death of Ray is no failure of the cell that it takes along.
    launch = long_lab.start("launch", "only=*.kl.*", "retries=0")
    for attempt, name in enumerate(("raylet", "gcs_server"), start=1):
        wait_until(lambda attempt=attempt: long_lab.attempts(KL) == attempt)
        long_lab.worker_at(KL, step=2)
        os.kill(wait_until(lambda name=name: process_of_ray(launch.pid, name)), signal.SIGKILL)
    text, _ = launch.communicate(timeout=LONGEST_SECONDS)

    assert launch.returncode == 0, text
    assert "Ray died (its raylet is gone); it is started again, 1 of 5" in text
    assert "Ray died (its GCS is gone); it is started again, 2 of 5" in text
    assert "retry" not in text
    assert long_lab.weights() == {KL: undisturbed[KL]}


def test_a_ray_that_always_dies_while_it_starts_is_said_in_one_sentence(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))
    launch = lab.start("launch")
    ended = []
    thread = threading.Thread(target=lambda: ended.append(launch.communicate()[0]))
    thread.start()
    while thread.is_alive():
        if raylet := process_of_ray(launch.pid, "raylet"):
            os.kill(raylet, signal.SIGKILL)
        time.sleep(0.05)

    assert launch.returncode == 20, ended
    *before, last = ended[0].splitlines()
    again = [line.rpartition(", ")[2] for line in before if "it is started again" in line]
    assert again == [f"{number} of 5" for number in range(1, 6)]
    assert last.startswith("orchestrator: Ray died 6 times within an hour")
    assert not lab.rows()


def test_rays_memory_monitor_is_named_with_its_own_reason(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    lab.write_grid(("supervised_star", "none"))

    text = lab.run("launch", "retries=0", code=11)

    assert "out_of_memory: 1 worker(s) were killed due to the node running low on memory." in text
    assert "exceeded threshold of" in text
    assert "run fewer cells at once (concurrency=1), fewer ranks at once on a node" in text
    assert "Log: none, since no attempt began" in text
    assert "Traceback" not in text


def test_two_ranks_killed_and_their_controller_give_the_weights_of_torchrun_and_leave_nothing(
    long_lab: Lab, torchrun_weights: str, own_temp: Path
) -> None:
    launch = long_lab.start("launch", "ranks=2", "only=*.kl.*")
    long_lab.worker_at(KL, step=2)
    # What it had reserved are all the cores there are.
    (controller,) = rank_processes(launch.pid, "TrainController")
    os.kill(controller, signal.SIGKILL)
    wait_until(lambda: long_lab.attempts(KL) == 2)
    first = long_lab.worker_at(KL, step=5)
    others = [pid for pid in rank_processes(launch.pid) if pid != first]
    assert others
    for pid in others:
        os.kill(pid, signal.SIGKILL)
    text, _ = launch.communicate(timeout=LONGEST_SECONDS)

    assert launch.returncode == 0, text
    assert long_lab.attempts(KL) >= 3
    assert long_lab.rows()[KL].world_size == 2
    assert long_lab.rows()[KL].weights_sha256 == torchrun_weights
    wait_until(lambda: not processes_of_ray(own_temp), seconds=15)


def test_an_unreachable_ray_and_too_large_a_wish_are_said_in_words(long_lab: Lab) -> None:
    text = long_lab.run("launch", "ray_address=127.0.0.1:1", code=20)
    assert "No Ray answers at ray_address=127.0.0.1:1" in text
    assert "Joining the Ray at ray_address=127.0.0.1:1, which takes up to" in text

    text = long_lab.run("launch", "gpus_per_rank=64", code=2)
    assert "the cluster has" in text
    assert "Starting Ray, which takes up to" in text
    assert not long_lab.rows()


def test_a_card_of_ray_that_torch_cannot_use_is_said_in_words_and_leaves_no_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 1}')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "99")  # what Ray hands on; unknown to any driver
    lab.write_grid(("unimatch_star", "kl"))

    text = replace(lab, is_warm=False).run("launch", code=11)

    assert "no_device: " in text
    assert "gpus_per_rank=1 asks for a GPU, which torch cannot use: " in text
    assert not (lab.root / "runs").exists()


def test_a_cell_that_fits_no_card_of_ray_is_refused_in_words(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 1, "accelerator_type:T4": 1}')
    large = {"backbone": "resnet50", "crop": 801, "method": "unimatch_star", "loss": "kl"}
    cells = [{"base": {**BASE, **large}}]
    lab.grid.write_text(yaml.safe_dump({"title": "Large", "overrides": [*TINY], "cells": cells}))

    text = replace(lab, is_warm=False).run("launch", code=2)

    assert "GiB on each card, which has 16" in text
    assert "run.memory=recompute" in text
    assert not (lab.root / "runs").exists()
