"""Verbs about jobs: cancel a grid's, follow a cell's log, ask the doctor."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

from datasets.open_storage import is_url
from orchestrator.options import LaunchOptions, parse
from orchestrator.places import Places
from orchestrator.sight import seen
from orchestrator.store import enter
from trainer.journal import METRICS

_FOLLOW_SECONDS = 0.5
_FOLLOW_STORE_SECONDS = 5.0


def cancel_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Cancel every job of a grid; running cells checkpoint first, and stay as they are."""
    from orchestrator.backends.slurm_jobs import Desk, cancel
    from slurm.sightings import squeue
    from sweeps.grid import load_grid

    name = load_grid(grid).name
    options, _ = parse(words)
    enter(options.root, options.scratch)
    desk = Desk(Places.at(options.root).grid(name).folder / "slurm", name)
    names = {job.batch.name for job in desk.known().values()}
    alive = [
        seen.job_id for seen in squeue().values() if seen.comment in names and not seen.has_ended
    ]
    cancel(alive)
    _say(f"{name}: {len(alive)} jobs cancelled; `launch` goes on from their checkpoints.")
    return 0


def logs(cell: str, words: Sequence[str], *, follow: bool) -> int:
    """Print what a cell's newest attempt and its job wrote; go on until Ctrl-C if asked.

    Raises:
        ValueError: the cell has no log yet.
    """
    options, _ = parse(words)
    enter(options.root, options.scratch)
    read: dict[Path, int] = {}
    pause = _FOLLOW_STORE_SECONDS if is_url(options.root) else _FOLLOW_SECONDS
    with suppress(KeyboardInterrupt):
        while True:
            found = _logs_of(cell, options)
            if not found and not read:
                raise ValueError(f"{cell} has no log under root={options.root}; see `status`.")
            for path in found:
                read[path] = _print_from(path, read.get(path, 0))
            if not follow:
                break
            time.sleep(pause)
    return 0


def doctor(words: Sequence[str], *, is_drill: bool) -> int:
    """Say what works here; with a drill, try it on fake trials."""
    from orchestrator.doctor import examine, exit_code, lines
    from orchestrator.doctor_drill import drill

    options, _ = parse(words)
    checks = []
    for check in examine(options):
        checks.append(check)
        lines(check, _say)
    if is_drill:
        for check in drill(options, _say):
            checks.append(check)
            lines(check, _say)
    return exit_code(checks)


def _logs_of(cell: str, options: LaunchOptions) -> list[Path]:
    """The messages and losses of a cell's newest attempt, and what its job printed."""
    from orchestrator.backends.slurm_notes import read_note

    places = Places.at(options.root)
    place = seen(places.run(cell))
    log = place.log(place.newest_attempt())
    ranks = sorted(log.parent.glob(f"{log.stem}-rank-*{log.suffix}"))
    found = [log, *ranks, place.folder / METRICS]
    notes = sorted(
        (places.root / "grids").glob(f"*/slurm/notes/{cell}.json"),
        key=lambda path: path.stat().st_mtime_ns,
    )
    note = read_note(notes[-1]) if notes else None
    if note is not None:
        batch = notes[-1].parents[1] / "batches" / note.batch.rpartition("-")[2]
        found += [batch / f"{note.job_id}_0_log.{kind}" for kind in ("out", "err")]
    return [path for path in found if path.exists()]


def _print_from(path: Path, offset: int) -> int:
    """Print a file from a byte on; returns where it ends now."""
    with path.open("rb") as file:
        if file.seek(0, 2) > offset:
            if offset == 0:
                _say(f"==> {path}", "bold")
            file.seek(offset)
            sys.stdout.write(file.read().decode(errors="replace"))
            sys.stdout.flush()
        return file.tell()


def _say(text: str, style: str = "") -> None:
    Console(file=sys.stdout).print(Text(text, style=style), soft_wrap=True)
