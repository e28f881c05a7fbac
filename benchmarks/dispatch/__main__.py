"""Cells that train nothing, from a launch to their rows, beside bare Ray Tune and bare submitit.

    python -m benchmarks.dispatch [cells=1000] [ways=inline,ray,bare_ray,slurm,bare_slurm]

A launch is the real command with locks, attempts, rows and events, run from a copy of the code
whose `trainer/run.py` returns at once. A bare run calls as many functions that do nothing. Printed
are cells per second from the first to the last, CPU seconds of the controller (the launch and its
driver of Ray, or the bare program), its memory when a tenth, a half and all have ended, and how
often Slurm's programs were called. Slurm is that of the tests, with two cores; it needs root.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import yaml

from benchmarks.dispatch import bare, no_training
from orchestrator.execution.code_snapshot import CODE_PACKAGES
from orchestrator.execution.provenance import CHECKOUT
from tests.support.lab import BASE, TINY, descendants
from tests.support.slurm.session import running_box

WAYS = ("inline", "ray", "bare_ray", "slurm", "bare_slurm")
_WORDS = {
    "inline": ("backend=inline",),
    "ray": ("backend=ray",),
    "slurm": ("backend=slurm", "slurm.controller=plain", "slurm.memory_gb=0.5"),
}
_CLIENTS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo")
_DRIVER = "orchestrator.backends.ray"  # in the command of the launch's process that holds Ray
_PARTS = (0.1, 0.5, 1.0)  # of the cells, when memory is read
_LOOK_SECONDS = 0.1
_LOOKS = 10  # between two searches for the processes
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """What one way took.

    Attributes:
        rate: cells per second, from the first that ended to the last.
        seconds: from the start of the command to its end.
        cpu_seconds: of the controller.
        memory: MiB of the controller when each of `_PARTS` had ended.
        calls: of Slurm's programs.
    """

    rate: float
    seconds: float
    cpu_seconds: float
    memory: Sequence[float]
    calls: Counter[str]

    def line(self, way: str, base: "Measured | None") -> str:
        """A line of the table."""
        ratio = "" if base is None else f"{self.rate / base.rate:.2f}"
        memory = " ".join(f"{value:.0f}" for value in self.memory)
        calls = ", ".join(f"{number} {name}" for name, number in self.calls.most_common())
        numbers = f"{self.rate:.2f} | {ratio} | {self.seconds:.0f} | {self.cpu_seconds:.1f}"
        return f"| {way} | {numbers} | {memory} | {calls} |"


def main(words: Sequence[str]) -> None:
    """Measure each way and print the table."""
    chosen = dict(word.split("=", 1) for word in words)
    cells, ways = int(chosen.get("cells", "1000")), chosen.get("ways", ",".join(WAYS)).split(",")
    if set(ways) - set(WAYS) or set(chosen) - {"cells", "ways"}:
        raise SystemExit(f"known: cells=NUMBER ways={','.join(WAYS)}")
    print(f"{cells} cells\n")
    print("| way | cells per second | ratio to bare | seconds | CPU s | MiB | calls of Slurm |")
    measured: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="dispatch-") as place:
        folder = Path(place)
        copy = copied_code(folder / "code")
        for way in ways:
            measured[way] = measure(way, cells, folder / way, copy)
            # Live, since a long run may be stopped; ratios come with the bare run.
            print(measured[way].line(way, measured.get(f"bare_{way}")), flush=True)
    for way in ways:
        if f"bare_{way}" in measured:
            print(measured[way].line(way, measured[f"bare_{way}"]))


def copied_code(target: Path) -> Path:
    """The code with a trainer that trains nothing."""
    for package in CODE_PACKAGES:
        shutil.copytree(CHECKOUT / package, target / package)
    shutil.copy(no_training.__file__, target / "trainer" / "run.py")
    return target


def measure(way: str, cells: int, folder: Path, copy: Path) -> Measured:
    """Run one way to its end."""
    folder.mkdir()
    if way.endswith("slurm"):
        with running_box(nodes=1, cpus=2), counted_calls(folder / "bin") as log:
            measured = _followed(way, cells, folder, copy)
            calls = Counter(log.read_text().split())
            return Measured(**{**vars(measured), "calls": calls})
    return _followed(way, cells, folder, copy)


@contextmanager
def counted_calls(folder: Path) -> Iterator[Path]:
    """Note every call of Slurm's programs in a file, one word each."""
    folder.mkdir()
    log, before = folder / "calls", os.environ["PATH"]
    log.touch()
    for name in _CLIENTS:
        program = folder / name
        program.write_text(f'#!/bin/sh\necho {name} >> {log}\nexec {shutil.which(name)} "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    os.environ["PATH"] = f"{folder}:{before}"
    try:
        yield log
    finally:
        os.environ["PATH"] = before


def _followed(way: str, cells: int, folder: Path, copy: Path) -> Measured:
    """Start the command of a way and look at it until it ends."""
    ended, command, cwd = _command(way, cells, folder, copy)
    started = time.monotonic()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=output)
    times: list[float] = []  # when the first cell and the last one had ended
    memory: list[float] = []
    cpu = 0.0
    for look in count():
        if process.poll() is not None:
            break
        number = _count(ended)
        if look % _LOOKS == 0:
            pids = _controllers(process.pid)
        cpu = max(cpu, sum(map(_cpu_seconds, pids)))
        while len(memory) < len(_PARTS) and number >= _PARTS[len(memory)] * cells:
            memory.append(sum(map(_mebibytes, pids)))
        if (number and not times) or (number >= cells and len(times) == 1):
            times.append(time.monotonic())
        time.sleep(_LOOK_SECONDS)
    if process.returncode or len(times) < 2 or _count(ended) < cells:
        raise SystemExit(
            f"{way} ended with {process.returncode}:\n{(folder / 'output').read_text()}"
        )
    seconds = time.monotonic() - started
    return Measured((cells - 1) / (times[1] - times[0]), seconds, cpu, memory, Counter())


def _command(way: str, cells: int, folder: Path, copy: Path) -> tuple[Path, list[str], Path]:
    """The folder that gets a file for each cell that ended, the command, and where to run it."""
    python = [sys.executable, "-m"]
    if way.startswith("bare_"):
        (folder / "ended").mkdir()
        name = way.removeprefix("bare_")
        return folder / "ended", [*python, bare.__name__, name, str(cells), str(folder)], CHECKOUT
    grid, root = folder / "grid.yaml", folder / "out"
    base = {**BASE, "method": "supervised_star", "loss": "none"}
    spec = {"title": "No work", "cells": [{"base": base}], "seeds": list(range(cells))}
    grid.write_text(yaml.safe_dump({**spec, "overrides": [*TINY, "run.device=cpu"]}))
    words = [str(grid), f"root={root}", f"data.root={folder.parent / 'data'}", *_WORDS[way]]
    return root / "results" / "rows", [*python, "orchestrator", "launch", *words], copy


def _count(folder: Path) -> int:
    """How many files lie in a folder; those that are being written have names with a dot."""
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return sum(not name.startswith(".") for name in names)


def _controllers(pid: int) -> list[int]:
    """The command's process, and the one in which a launch holds Ray."""
    drivers = []
    for child in descendants(pid):
        with suppress(OSError):
            if _DRIVER in Path(f"/proc/{child}/cmdline").read_text():
                drivers.append(child)
    return [pid, *drivers]


def _cpu_seconds(pid: int) -> float:
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def _mebibytes(pid: int) -> float:
    with suppress(OSError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


if __name__ == "__main__":
    main(sys.argv[1:])
