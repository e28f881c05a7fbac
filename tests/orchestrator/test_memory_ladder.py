"""A cell without memory is tried again on the next rung of `run.memory`."""

import ctypes
import json
import resource
from pathlib import Path

import pytest
import yaml

from orchestrator.__main__ import main
from tests.support.lab import BASE, TINY, Lab
from tests.support.process_groups import in_fresh_process
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
_ARENA_MAX, _MMAP_THRESHOLD = -8, -3  # of mallopt


def launch(words: list[str]) -> int:
    """A launch in this process, which may grow by SPARE."""
    libc = ctypes.CDLL(None)
    # Each thread would reserve an arena of 64 MiB, which counts although it is empty; and what the
    # first attempt gives back must go back to the kernel.
    libc.mallopt(_ARENA_MAX, 1)
    libc.mallopt(_MMAP_THRESHOLD, 2**16)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + SPARE, resource.RLIM_INFINITY))
    return main(["launch", *words])


@pytest.mark.long
def test_a_cell_without_memory_is_done_on_the_next_rung(lab: Lab) -> None:
    lab.grid.write_text(yaml.safe_dump({"title": "Large", "cells": [{"base": CELL}]}))
    words = [str(lab.grid), *lab.words, *TINY, *LARGE, "optim.epochs=1", "backend=inline"]

    code = in_fresh_process(launch, words)

    assert code == 0
    ((key, row),) = lab.rows().items()
    assert (row.status, row.attempt) == ("done", 2)
    config = json.loads(row.config_json)
    assert config["run"]["memory"] == "recompute"
    assert row.fingerprint == fingerprint(from_json(row.config_json))
    failed = next(event for event in lab.events(key) if event["event"] == "failed")
    assert failed["failure"] == "out_of_memory"
    started = [event for event in lab.events(key) if event["event"] == "started"]
    assert [event["memory"] for event in started] == ["full", "recompute"]
    assert {event["fingerprint"] for event in started} == {row.fingerprint}
