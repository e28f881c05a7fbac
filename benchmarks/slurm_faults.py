"""A drawn grid on the Slurm of the tests, under random accidents, to the end.

    python -m benchmarks.slurm_faults [NUM_CELLS] [NUM_FAULTS] [no-accounting]

Preempts, loses nodes, cancels jobs, kills the launch and stops slurmctld for 30 seconds, at times
drawn from a seed; then compares every row with the grid run undisturbed in one process.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from datasets.randomness import KeyedRandom, Stream
from tests.support.lab import BASE, TINY, Lab
from tests.support.slurm.cluster import SlurmBox
from tests.support.slurm.session import running_box

WORDS = (
    "backend=slurm",
    "slurm.controller=plain",
    "gpus_per_rank=0",
    "slurm.memory_gb=1",
    "slurm.minutes=1",
    "slurm.signal_seconds=20",
    "slurm.poll_seconds=6",
)
METHODS = [(m, loss) for m in ("unimatch_star", "fixmatch_star") for loss in ("none", "kl", "cr")]


def write_grid(lab: Lab, num_cells: int, epochs: int) -> None:
    """Six methods and losses, times as many seeds as it takes."""
    cells = [{"base": {**BASE, "method": method, "loss": loss}} for method, loss in METHODS]
    spec = {
        "title": "Faults",
        "overrides": [f"optim.epochs={epochs}", *TINY],
        "seeds": list(range(1, 1 + num_cells // len(METHODS))),
        "cells": cells,
    }
    lab.folder.mkdir(parents=True)
    lab.grid.write_text(yaml.safe_dump(spec))


class Accidents:
    """Draws what happens next, and does it."""

    def __init__(self, box: SlurmBox, lab: Lab, draws: KeyedRandom) -> None:
        self.box, self.lab, self.draws = box, lab, draws
        self.launch = lab.start("launch", *WORDS)
        self.counts = dict.fromkeys(("preempt", "lose", "cancel", "kill", "outage"), 0)

    def happen(self, kind: str) -> None:
        """One accident."""
        self.counts[kind] += 1
        getattr(self, kind)()

    def preempt(self) -> None:
        """Two of three nodes are wanted elsewhere."""
        fill = ("-p", "high", "-N2", "-c4", "--mem=100", "-o", "/dev/null")
        self.box.run("sbatch", *fill, "--wrap", "sleep 4")

    def lose(self) -> None:
        """A node dies and comes back."""
        self.box.lose(f"n{self.draws.integer(1, self.box.nodes)}")
        time.sleep(2)
        self.box.resume()

    def cancel(self) -> None:
        """Somebody cancels a job; the next launch runs its cell again."""
        running = [words[0] for words in self.box.jobs("-t", "RUNNING") if "." in words[1]]
        if running:
            self.box.run("scancel", running[self.draws.integer(0, len(running) - 1)], check=False)

    def kill(self) -> None:
        """The launch is killed, and started again."""
        if self.launch.poll() is None:
            os.killpg(self.launch.pid, signal.SIGKILL)
        self.launch.communicate()
        self.launch = self.lab.start("launch", *WORDS)

    def outage(self) -> None:
        """Nobody can ask or submit for 30 seconds."""
        self.box.stop("slurmctld")
        time.sleep(30)
        self.box.start("slurmctld")
        self.box.wait_nodes()


def disturb(box: SlurmBox, lab: Lab, num_faults: int) -> Accidents:
    """Every kind of accident once, then drawn ones."""
    draws = KeyedRandom(2024, Stream.DRAWING)
    found = Accidents(box, lab, draws)
    kinds = list(found.counts)
    for number in range(num_faults):
        time.sleep(draws.uniform(4.0, 12.0))
        kind = kinds[number] if number < len(kinds) else kinds[draws.integer(0, 3)]
        print(f"{time.strftime('%T')} {kind}; {len(lab.rows())} rows", flush=True)
        found.happen(kind)
        if found.launch.poll() is not None:  # its cells were cancelled, or nobody answered it
            found.kill()
    return found


def finish(lab: Lab, launch: "subprocess.Popen[str]") -> int:
    """Launch until everything is done; returns how often."""
    launches = 1
    text, _ = launch.communicate()
    while launch.returncode != 0:
        print(text[-1500:])
        launches += 1
        launch = lab.start("launch", *WORDS)
        text, _ = launch.communicate()
    return launches


def main(words: list[str]) -> None:
    """Disturb, finish, compare."""
    num_cells, num_faults = (int(words[0]) if words else 24, int(words[1]) if words[1:] else 12)
    accounting = "no-accounting" not in words
    os.environ["CLAIM_FRESH_SECONDS"] = "8"
    with (
        tempfile.TemporaryDirectory() as folder,
        running_box(accounting=accounting, warns=accounting) as box,
    ):
        data = Path(folder) / "drawn"
        calm, rough = (Lab(Path(folder) / name, data, is_warm=False) for name in ("calm", "rough"))
        for lab in (calm, rough):
            write_grid(lab, num_cells, epochs=16)
        text, _ = (undisturbed := calm.start("launch", "backend=inline")).communicate()
        assert undisturbed.returncode == 0, text
        print(f"{len(calm.rows())} cells undisturbed", flush=True)
        started = time.monotonic()
        found = disturb(box, rough, num_faults)
        launches = finish(rough, found.launch)
        seconds = time.monotonic() - started
        attempts = sum(rough.attempts(key) for key in rough.rows())
        same = sum(rough.weights()[key] == value for key, value in calm.weights().items())
        print(f"{same} of {len(calm.weights())} rows equal in weights and mIoU to inline; "
              f"{attempts} attempts, {launches} launches at the end, {found.counts}, "
              f"{seconds:.0f} s")  # fmt: skip
        assert same == len(calm.weights()) > 0


if __name__ == "__main__":
    main(sys.argv[1:])
