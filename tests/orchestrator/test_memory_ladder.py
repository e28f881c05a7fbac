"""A cell without memory is tried again on the next rung of `run.memory`."""

import ctypes
import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from datasets.dataset import open_dataset
from orchestrator.__main__ import main
from orchestrator.execution.attempt import run_trial
from orchestrator.planning.plan import make_plan
from orchestrator.trial import Outcome, Trial
from tests.support.lab import BASE, LONGEST_SECONDS, TINY, Lab
from tests.support.process_groups import (
    FORKSERVER,
    as_a_process_of_its_own,
    free_port,
    in_fresh_process,
)
from trainer.config.compose import from_json
from trainer.config.fingerprint import fingerprint

# A stage of many channels at a quarter of a large crop: activations are most of what it needs.
CELL = {**BASE, "backbone": "resnet14_w16", "crop": 257, "method": "unimatch_star", "loss": "none"}
LARGE = (
    "model.blocks=[3,2,1,1]",
    "model.head_channels=16",
    "data.drawn.num_train=8",
)
SPARE = 575 * 2**20  # bytes; a step that keeps all needs some 700 MiB, a recomputed one 470
SPARE_OF_NONE = 300 * 2**20  # not even the first forward
_ARENA_MAX, _MMAP_THRESHOLD = -8, -3  # of mallopt


def launch(words: list[str]) -> int:
    """A launch in this process, which may grow by SPARE."""
    limit_growth(SPARE)
    return main(["launch", *words])


def limit_growth(spare_bytes: int) -> None:
    """Let the system refuse this process more memory than it has and so much."""
    libc = ctypes.CDLL(None)
    # Each thread would reserve an arena of 64 MiB, which counts although it is empty; and what the
    # first attempt gives back must go back to the kernel.
    libc.mallopt(_ARENA_MAX, 1)
    libc.mallopt(_MMAP_THRESHOLD, 2**16)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + spare_bytes, resource.RLIM_INFINITY))


def run_rank(rank: int, trial: Trial, port: int) -> None:
    """One of two ranks of an attempt, in its own process; the second one gets no memory."""
    as_a_process_of_its_own()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if rank == 1:
        limit_growth(SPARE_OF_NONE)
    outcome = run_trial(trial)
    Path(trial.scratch, f"{rank}.json").write_text(outcome.to_json())


@pytest.fixture
def own(lab: Lab) -> Lab:
    """A lab with a drawn data set of its own, which is smaller than the shared one."""
    own = replace(lab, data=lab.folder / "few")
    own.grid.write_text(yaml.safe_dump({"title": "Large", "cells": [{"base": CELL}]}))
    return own


@pytest.mark.long
def test_a_rank_without_memory_says_so_for_the_one_that_lost_it(own: Lab) -> None:
    words = [*own.words, *TINY, *LARGE, "optim.epochs=1"]
    (cell,) = make_plan(str(own.grid), own.opened, overrides=words[1:]).cells
    open_dataset(cell.config.data)
    blank = Trial(cell.key, cell.config_json, cell.fingerprint, own.address, "slurm", "")
    trial = replace(blank, stop_file=str(own.folder / "stop"), scratch=str(own.folder), ranks=2)
    port = free_port()

    ranks = [FORKSERVER.Process(target=run_rank, args=(rank, trial, port)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(LONGEST_SECONDS)

    outcome = Outcome.from_json((own.folder / "0.json").read_text())
    assert (outcome.status, outcome.failure) == ("failed", "out_of_memory")
    assert outcome.next_memory == "recompute"
    assert outcome.error_text.startswith("rank 1: ")


@pytest.mark.long
def test_a_cell_without_memory_is_done_on_the_next_rung(own: Lab) -> None:
    words = [str(own.grid), *own.words, *TINY, *LARGE, "optim.epochs=1", "backend=inline"]

    code = in_fresh_process(launch, words)

    assert code == 0
    ((key, row),) = own.rows().items()
    assert (row.status, row.attempt) == ("done", 2)
    config = json.loads(row.config_json)
    assert config["run"]["memory"] == "recompute"
    assert row.fingerprint == fingerprint(from_json(row.config_json))
    failed = next(event for event in own.events(key) if event["event"] == "failed")
    assert failed["failure"] == "out_of_memory"
    started = [event for event in own.events(key) if event["event"] == "started"]
    assert [event["memory"] for event in started] == ["full", "recompute"]
    assert {event["fingerprint"] for event in started} == {row.fingerprint}
