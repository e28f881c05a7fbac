"""A drawn grid under root=s3:// on the S3 server of the tests, under random kills, to the end.

    python -m benchmarks.s3_kill_drill [NUM_CELLS] [NUM_ACCIDENTS] [SEED]

Kills workers, the controller, everything and the gateway with SIGKILL, and lets requests fail, at
times drawn from a seed. Each launch after a kill works in one of two scratch folders, as if on one
of two hosts. In the end every row is compared with the grid run undisturbed under a folder.
"""

import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import yaml

from datasets.errors import Unreachable
from datasets.randomness import KeyedRandom, Stream
from datasets.storage.s3 import Calls
from orchestrator.storage.s3_storage import storage_of
from tests.support.lab import BASE, TINY, Lab, kill_all
from tests.support.s3.ceph import CephBox, shared_box, surroundings
from tests.support.s3.faults import Proxy

METHODS = [(m, loss) for m in ("unimatch_star", "fixmatch_star") for loss in ("none", "kl", "cr")]
HOSTS = ("one", "other")
EPOCHS = 24


def write_grid(lab: Lab, num_cells: int) -> None:
    """Six methods and losses, times as many seeds as it takes."""
    cells = [{"base": {**BASE, "method": method, "loss": loss}} for method, loss in METHODS]
    spec = {
        "title": "Kills",
        "overrides": [f"optim.epochs={EPOCHS}", *TINY],
        "seeds": list(range(1, 1 + num_cells // len(METHODS))),
        "cells": cells,
    }
    lab.folder.mkdir(parents=True)
    lab.grid.write_text(yaml.safe_dump(spec))


class Accidents:
    """Draws what happens next, and does it."""

    def __init__(self, box: CephBox, proxy: Proxy, lab: Lab, draws: KeyedRandom) -> None:
        self.box, self.proxy, self.lab, self.draws = box, proxy, lab, draws
        self.keys: list[str] = []
        self.launches = 0
        self.counts = dict.fromkeys(("worker", "controller", "everything", "gateway", "faults"), 0)
        self.start()

    def start(self) -> None:
        """Launch, on one of the hosts."""
        host = HOSTS[self.draws.integer(0, len(HOSTS) - 1)]
        lab = Lab(self.lab.folder, self.lab.data, self.lab.url, host, is_warm=False)
        self.launch = lab.start("launch", "backend=ray")
        self.launches += 1

    def happen(self, kind: str) -> bool:
        """One accident; False when nobody was there to meet it."""
        met = bool(getattr(self, kind)())
        self.counts[kind] += met
        return met

    def worker(self) -> bool:
        """A process that trains."""
        with suppress(ProcessLookupError, Unreachable):  # the faults meet us, too
            states = self.lab.opened.states(self.keys)
            pids = [state.owner.pid for state in states.values() if state.owner is not None]
            if not pids:
                return False
            os.kill(pids[self.draws.integer(0, len(pids) - 1)], signal.SIGKILL)
            return True
        return False

    def controller(self) -> bool:
        """The launch alone; what it started finds out by itself."""
        self.launch.kill()
        self.launch.communicate()
        self.start()
        return True

    def everything(self) -> bool:
        """The launch and all that it started, at once."""
        kill_all(self.launch)
        self.start()
        return True

    def gateway(self) -> bool:
        """The S3 server's door, back after three seconds."""
        self.box.kill("rgw")
        time.sleep(3.0)
        self.box.start("rgw")
        return True

    def faults(self) -> bool:
        """Ten requests of each kind fail."""
        for harm in ("status", "lose_answer", "cut_answer", "cut_request"):
            self.proxy.harm(".*", harm, times=10, count=50)  # type: ignore[arg-type]
        return True


def disturb(found: Accidents, num_accidents: int) -> None:
    """Every kind of accident in turn, at drawn moments, while the grid runs."""
    kinds = list(found.counts)
    happened = 0
    while happened < num_accidents:
        time.sleep(found.draws.uniform(2.0, 14.0))
        if found.launch.poll() is not None:
            if found.launch.returncode == 0:
                return
            found.start()
        kind = kinds[happened % len(kinds)]
        happened += found.happen(kind)
        print(f"{time.strftime('%T')} {kind}: {found.counts}", flush=True)


def finish(found: Accidents) -> None:
    """Launch until everything is done."""
    while True:
        text, _ = found.launch.communicate()
        if found.launch.returncode == 0:
            return
        print(text[-1500:], flush=True)
        found.start()


def drill(folder: Path, url: str, proxy: Proxy, numbers: tuple[int, int, int]) -> None:
    """Disturb, finish, compare."""
    num_cells, num_accidents, seed = numbers
    calm = Lab(folder / "calm", folder / "drawn", is_warm=False)
    rough = Lab(folder / "rough", folder / "drawn", url, is_warm=False)
    for lab in (calm, rough):
        write_grid(lab, num_cells)
    began = time.monotonic()
    text, _ = (undisturbed := calm.start("launch", "backend=ray")).communicate()
    assert undisturbed.returncode == 0, text
    print(f"{len(calm.rows())} cells undisturbed, {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    found = Accidents(shared_box(), proxy, rough, KeyedRandom(seed, Stream.DRAWING))
    found.keys = list(calm.rows())
    disturb(found, num_accidents)
    finish(found)
    seconds = time.monotonic() - began
    proxy.heal()
    attempts = sum(rough.attempts(key) for key in rough.rows())
    same = sum(rough.weights().get(key) == value for key, value in calm.weights().items())
    stored = len(storage_of(url).entries("results/rows/"))
    print(f"{same} of {len(calm.weights())} rows equal in weights and mIoU; {stored} row files, "
          f"{attempts} attempts, {found.launches} launches, {found.counts}, "
          f"{seconds:.0f} s")  # fmt: skip
    assert same == len(calm.weights()) == num_cells


def main(words: list[str]) -> None:
    """Start the server, drill, and leave nothing behind."""
    given = [int(word) for word in words]
    numbers = (*given, *(12, 20, 2024)[len(given) :])
    os.environ["CLAIM_FRESH_SECONDS"] = "8"
    with (
        tempfile.TemporaryDirectory() as folder,
        Proxy(shared_box().port) as proxy,
        surroundings(proxy.port),
    ):
        Calls("drill", 60.0, 20.0).ask("create_bucket")
        drill(Path(folder), "s3://drill/grid", proxy, (numbers[0], numbers[1], numbers[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
