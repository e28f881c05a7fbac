"""Timings of the kinds of cells of a grid, each made once for a place and kept under the root.

Cells are of one kind if they differ only in seed, split and number of epochs: their steps are the
same.
"""

import hashlib
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

from datasets.files import atomic_write
from orchestrator.backends.base import worker_environment
from orchestrator.execution.code_snapshot import digest_of
from orchestrator.execution.timing import BLOCK_STEPS, BLOCKS, ProbeFailed, Timing, timed_apart
from orchestrator.options import LaunchOptions
from orchestrator.planning.plan import PlannedCell
from orchestrator.storage.root import Root
from trainer.config.fingerprint import config_json
from trainer.config.schema import TrainConfig

# The code that a timing depends on. Grids, tables and presets do not: what they say of a run is
# in its configuration, which is a part of its kind.
_TIMED_CODE = ("datasets/", "trainer/", "orchestrator/execution/timing.py")


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


def known_timings(
    cells: Iterable[PlannedCell], root: Root, options: LaunchOptions
) -> dict[str, Timing]:
    """What earlier probes of today's code said of the place of a launch, by key of the cell."""
    timings: dict[str, Timing] = {}
    if not _folder(root).is_dir():
        return timings
    read: dict[str, Timing | None] = {}
    for key, kind in kinds_of(cells).items():
        if kind not in read:
            read[kind] = None
            with suppress(OSError):  # this kind was not timed yet
                read[kind] = Timing.from_json(_file(root, kind, options).read_text())
        timing = read[kind]
        if timing is not None:
            timings[key] = timing
    return timings


def num_outdated(cells: Iterable[PlannedCell], root: Root, options: LaunchOptions) -> int:
    """How many kinds of cells were timed in the place of a launch, but only with other code."""
    files = [_file(root, kind, options) for kind in {*kinds_of(cells).values()}]
    return sum(file.parent.is_dir() and not file.exists() for file in files)


def untimed(
    cells: Iterable[PlannedCell], root: Root, options: LaunchOptions
) -> dict[str, PlannedCell]:
    """The first cell of each kind that was not timed yet in the place of a launch, by kind."""
    cells = list(cells)
    known, kinds = known_timings(cells, root, options), kinds_of(cells)
    firsts: dict[str, PlannedCell] = {}
    for cell in cells:
        if cell.key not in known:
            firsts.setdefault(kinds[cell.key], cell)
    return firsts


def probe(
    cells: Mapping[str, PlannedCell], root: Root, options: LaunchOptions, say: Callable[[str], None]
) -> None:
    """Time cells one after the other, each in a process of its own on this machine.

    Args:
        cells: by kind, see `untimed`.
        root: where the timings are kept; nothing of a run is written there.
        options: of the launch to come, which says where its cells run.
        say: shows a line of progress, and why a kind could not be timed.
    """
    for number, (kind, cell) in enumerate(cells.items(), start=1):
        say(f"[{number}/{len(cells)}] timing {BLOCKS * BLOCK_STEPS} steps of {cell.key}")
        try:
            timing = timed_apart(cell.config_json, {**os.environ, **worker_environment()})
        except ProbeFailed as failed:
            say(f"{cell.key} cannot be timed here: {failed}")
            continue
        keep(timing, root, kind, options)


def keep(timing: Timing, root: Root, kind: str, options: LaunchOptions) -> None:
    """Keep the timing of a kind for the next plan and launch."""
    file = _file(root, kind, options)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, timing.to_json())


def is_here(options: LaunchOptions) -> bool:
    """Whether a process of this machine, started here, is what cells of a launch would be."""
    return options.backend == "inline" or (
        options.backend == "ray" and not options.ray_address and options.ranks == 1
    )


def _folder(root: Root) -> Path:
    return root.folder / "probes"


def _file(root: Root, kind: str, options: LaunchOptions) -> Path:
    """Where the timing of a kind, by today's code and in the place of a launch, is kept."""
    if options.backend == "slurm":
        place = f"slurm {options.slurm.partition} {options.slurm.constraint} {options.slurm.extra}"
    elif options.ray_address:
        place = f"ray {options.ray_address}"
    else:
        place = f"{socket.gethostname()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
    ranks = 1 if options.backend == "inline" else options.ranks
    name = hashlib.sha256(f"{kind} {ranks} {place}".encode()).hexdigest()
    return _folder(root) / name / f"{digest_of(*_TIMED_CODE)}.json"
