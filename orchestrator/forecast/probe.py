"""Timings of the kinds of cells of a grid on this machine, each made once and kept under the root.

Cells are of one kind if they differ only in seed, split and number of epochs: their steps are the
same.
"""

import hashlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

from datasets.files import atomic_write
from orchestrator.backends.base import worker_environment
from orchestrator.execution.code_snapshot import digest_of
from orchestrator.forecast.timing import BLOCK_STEPS, BLOCKS, Timing
from orchestrator.planning.plan import PlannedCell
from orchestrator.storage.root import Root
from trainer.config.fingerprint import config_json
from trainer.config.schema import TrainConfig

_SCRIPT = Path(__file__).with_name("timing.py")
# The code that a timing depends on. Grids, tables and presets do not: what they say of a run is
# in its configuration, which is a part of its kind.
_TIMED_CODE = ("datasets/", "trainer/", "orchestrator/forecast/timing.py")


class ProbeFailed(RuntimeError):
    """A kind of cell could not be timed on this machine."""


def kinds_of(cells: Iterable[PlannedCell]) -> dict[str, str]:
    """What the steps of each cell depend on, by key: a hash that is equal for cells of one kind."""
    known: dict[tuple[int, ...], str] = {}
    kinds = {}
    for cell in cells:
        config = cell.config
        # id() instead of hashing: `cell_configs` shares equal parts as one object, which live here.
        parts = tuple(id(getattr(config, f.name)) for f in fields(config) if f.name != "seed")
        if parts not in known:
            known[parts] = hashlib.sha256(_without_lists(config).encode()).hexdigest()
        kinds[cell.key] = known[parts]
    return kinds


def _without_lists(config: TrainConfig) -> str:
    """The configuration as JSON, without what only decides which images come, and how often."""
    return config_json(
        replace(
            config,
            seed=0,
            data=replace(config.data, split=""),
            optim=replace(config.optim, epochs=0, steps=0),
            evaluation=replace(config.evaluation, every_epochs=1),
        )
    )


def known_timings(cells: Iterable[PlannedCell], root: Root) -> dict[str, Timing]:
    """What earlier probes of today's code on this machine said, by key of the cell."""
    timings: dict[str, Timing] = {}
    if not _folder(root).is_dir():
        return timings
    read: dict[str, Timing | None] = {}
    for key, kind in kinds_of(cells).items():
        if kind not in read:
            read[kind] = None
            with suppress(OSError):  # this kind was not timed yet
                read[kind] = Timing.from_json(_place(root, kind).read_text())
        timing = read[kind]
        if timing is not None:
            timings[key] = timing
    return timings


def num_outdated(cells: Iterable[PlannedCell], root: Root) -> int:
    """How many kinds of cells were timed on this machine, but only with other code."""
    places = [_place(root, kind) for kind in {*kinds_of(cells).values()}]
    return sum(place.parent.is_dir() and not place.exists() for place in places)


def probe(
    cells: Iterable[PlannedCell], root: Root, say: Callable[[str], None]
) -> dict[str, Timing]:
    """Time every kind of cell that was not timed yet, one after the other, on this machine.

    Args:
        cells: those to forecast; the first of each kind is timed.
        root: where the timings are kept; nothing of a run is written there.
        say: shows a line of progress, and why a kind could not be timed.

    Returns:
        The timings by key of the cell, without those that could not be made.
    """
    cells = list(cells)
    known, kinds = known_timings(cells, root), kinds_of(cells)
    firsts = {kinds[cell.key]: cell for cell in reversed(cells) if cell.key not in known}
    for number, (kind, cell) in enumerate(reversed(firsts.items()), start=1):
        say(f"[{number}/{len(firsts)}] timing {BLOCKS * BLOCK_STEPS} steps of {cell.key}")
        try:
            timing = _timing_of(cell)
        except ProbeFailed as failed:
            say(f"{cell.key} cannot be timed here: {failed}")
            continue
        place = _place(root, kind)
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, timing.to_json())
    return known_timings(cells, root)


def _folder(root: Root) -> Path:
    return root.folder / "probes"


def _place(root: Root, kind: str) -> Path:
    """Where the timing of a kind by today's code on this machine is kept."""
    cards = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    text = f"{kind} {socket.gethostname()} {cards}"
    name = hashlib.sha256(text.encode()).hexdigest()
    return _folder(root) / name / f"{digest_of(*_TIMED_CODE)}.json"


def _timing_of(cell: PlannedCell) -> Timing:
    """Time a cell in a process of its own.

    Raises:
        ProbeFailed: with the last line that this process printed.
    """
    with tempfile.TemporaryDirectory(prefix="probe-") as name:
        folder = Path(name)
        config, answer = folder / "config.json", folder / "timing.json"
        config.write_text(cell.config_json)
        command = [sys.executable, str(_SCRIPT), str(config), str(folder / "run"), str(answer)]
        # Without PYTHONSAFEPATH the folder of the script would come before the code.
        environment = {**os.environ, **worker_environment(), "PYTHONSAFEPATH": "1"}
        ended = subprocess.run(command, env=environment, capture_output=True, check=False)
        if ended.returncode == 0:
            return Timing.from_json(answer.read_text())
        lines = ended.stderr.decode(errors="replace").strip().splitlines()
        raise ProbeFailed(lines[-1] if lines else f"exit code {ended.returncode}")
