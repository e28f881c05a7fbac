"""Start the real command line on grids of tiny cells, and kill what it starts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from orchestrator.execution.code_snapshot import CODE_PACKAGES
from orchestrator.results.counted import counted
from orchestrator.results.store import Row, read_rows
from orchestrator.storage.open import open_root
from orchestrator.storage.root import Root
from tests.support.warm_process import WarmCommand

Answer = TypeVar("Answer")

CHECKOUT = Path(__file__).resolve().parents[2]
BASE = {"recipe": "synthetic", "split": "1of2", "crop": 32, "backbone": "resnet14_w8"}
TINY = (
    "data.drawn.num_train=24",
    "data.drawn.num_val=4",
    "run.checkpoint_steps=1",
    "method.confidence=0.2",  # so low that the unlabelled terms count from the first step
    "loss.threshold=0.25",
)
LONGEST_SECONDS = 600.0  # of anything here, on a machine that does much else
# Folders and files may be called like this; to shells, Hydra, Slurm and URLs most of it means more.
ODD = "50%j a=1,b (it's) #3 & ~é;$HOME {id} [q]*!%2t"
EPOCHS = 12  # of the long cells: some seconds even on an idle machine
LONG_RUNS = (("unimatch_star", "none"), ("unimatch_star", "kl"))  # methods and losses of them
SUPERVISED = "synthetic.1of2.resnet14_w8.c32.supervised_star.none.s12345"
UNIMATCH = "synthetic.1of2.resnet14_w8.c32.unimatch_star.none.s12345"
KL = "synthetic.1of2.resnet14_w8.c32.unimatch_star.kl.s12345"

Command = subprocess.Popen[str] | WarmCommand


@dataclass(frozen=True)
class Lab:
    """A root and a grid file of one test; drawn images are shared by all tests.

    Attributes:
        url: of a root in an object store, instead of a folder.
        host: name of the scratch folder under it; another one stands for another host.
        is_warm: commands come from a process that has imported what they need.
        grid_name: of its file.
    """

    folder: Path
    data: Path
    url: str = ""
    host: str = "host"
    checkout: Path = CHECKOUT
    is_warm: bool = True
    grid_name: str = "tiny"

    @property
    def root(self) -> Path:
        return self.folder / "out"

    @property
    def grid(self) -> Path:
        return self.folder / f"{self.grid_name}.yaml"

    @property
    def words(self) -> list[str]:
        scratch = [f"scratch={self.folder / self.host}"] if self.url else []
        return [f"root={self.address}", f"data.root={self.data}", *scratch]

    @property
    def address(self) -> str:
        return self.url or str(self.root)

    @property
    def opened(self) -> Root:
        """The root as a process of another machine sees it."""
        return open_root(self.address)

    def write_grid(self, *runs: tuple[str, str], epochs: int = 1) -> None:
        """A grid of (method, loss) pairs."""
        cells = [{"base": {**BASE, "method": method, "loss": loss}} for method, loss in runs]
        overrides = [f"optim.epochs={epochs}", *TINY]
        spec = {"title": "Tiny", "overrides": overrides, "cells": cells}
        self.grid.write_text(yaml.safe_dump(spec))

    def with_own_checkout(self) -> "Lab":
        """The same lab with a copy of the code that may be changed."""
        checkout = self.folder / "checkout"
        for package in CODE_PACKAGES:
            shutil.copytree(CHECKOUT / package, checkout / package)
        return replace(self, checkout=checkout)

    def edit(self) -> None:
        """Break the code of the checkout."""
        assert self.checkout != CHECKOUT
        for name in (
            "trainer/loop.py",
            "orchestrator/trial.py",
            "orchestrator/execution/attempt.py",
        ):
            (self.checkout / name).write_text("raise RuntimeError('edited during the launch')\n")

    def command(self, verb: str, *words: str) -> list[str]:
        call = [sys.executable, "-m", "orchestrator", verb, str(self.grid)]
        return [*call, *self.words, *words]

    def start(self, verb: str, *words: str) -> Command:
        """Start a command in a process group of its own."""
        if self.is_warm and self.checkout == CHECKOUT:
            return WarmCommand([verb, str(self.grid), *self.words, *words], self.checkout)
        return subprocess.Popen(
            self.command(verb, *words),
            cwd=self.checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, verb: str, *words: str, code: int = 0) -> str:
        """Run a command to its end; its exit code must be `code`."""
        process = self.start(verb, *words)
        text, _ = process.communicate(timeout=LONGEST_SECONDS)
        assert process.returncode == code, text
        return text

    def states(self, *words: str) -> dict[str, str]:
        """State of every cell, from `plan --json`."""
        plan = json.loads(self.run("plan", "--json", *words))
        return {cell["key"]: cell["state"] for cell in plan["cells"]}

    def events(self, key: str) -> list[dict[str, Any]]:
        """What happened to a run, oldest first."""
        path = self.opened.local_copy(key).events
        return [json.loads(line) for line in path.read_text().splitlines()]

    def rows(self) -> dict[str, Row]:
        return counted(read_rows(self.opened), {})

    def weights(self) -> dict[str, tuple[str | None, float | None]]:
        """What must not depend on any accident: weights and accuracy of every cell."""
        done = {key: row for key, row in self.rows().items() if row.status == "done"}
        return {key: (row.weights_sha256, row.best_miou_percent) for key, row in done.items()}

    def attempts(self, key: str) -> int:
        return self.opened.newest_attempt(key)

    def worker_at(self, key: str, step: int) -> int:
        """Wait for a checkpoint at or after a step; the process that trains."""
        root = self.opened

        def pid() -> int:
            state = root.states([key])[key]
            is_there = state.newest is not None and state.newest.step >= step
            return state.owner.pid if is_there and state.owner is not None else 0

        # Each look at a bucket takes time from the run that it waits for.
        return wait_until(pid, pause=0.2 if self.url else 0.02)


def committed(folder: Path) -> str:
    """Make a repository of a folder; its commit."""
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "All"]):
        subprocess.run([*git, *words], check=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def wait_until(
    question: Callable[[], Answer], seconds: float = LONGEST_SECONDS, *, pause: float = 0.02
) -> Answer:
    """Ask again and again about what other processes do; the first answer that is true."""
    give_up = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(pause)
    return answer


def kill_all(process: Command) -> None:
    """SIGKILL a command and everything it started, at once, and wait for the end."""
    kill_family(process.pid)
    process.communicate()


def kill_family(process: int) -> None:
    """SIGKILL a process and everything it started, at once."""
    for pid in [process, *descendants(process)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    below: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        below += children
        waiting += children
    return below


def rank_processes(launch: int, actor: str = "RayTrainWorker") -> list[int]:
    """Processes of the Ray Train worker group of a launch, by the name Ray gives them."""
    ranks = []
    for pid in descendants(launch):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if words.startswith(f"ray::{actor}".encode()):
            ranks.append(pid)
    return ranks


def process_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def torchrun_weights(lab: Lab) -> str:
    """Weights of the KL cell trained by torchrun with two ranks, without Ray."""
    call = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "trainer"]
    return weights_without_launch(lab, *call)


def weights_without_launch(lab: Lab, *module: str, epochs: int = EPOCHS) -> str:
    """Weights of the KL cell trained by a module that knows nothing of grids."""
    settings = [
        "recipe=synthetic",
        "data.split=1of2",
        "model=resnet14_w8",
        "data.crop=32",
        "method=unimatch_star",
        "loss=kl",
        f"optim.epochs={epochs}",
        *TINY,
        f"data.root={lab.data}",
        f"run.folder={lab.folder / 'alone'}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", *module, *settings],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST_SECONDS,
    )
    return done.stdout.split("weights ")[1].split(";")[0]
