"""The verbs for a root and the machine around it: files, jobs, logs, and what works here."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

from datasets.wording import did_you_mean, listed, quantity
from orchestrator.commands.output import console_of_output, print_json, print_note, print_text
from orchestrator.commands.request import answering_root, request_of, split_flags
from orchestrator.options import parse
from orchestrator.planning.plan import EXIT_DONE
from orchestrator.storage.open import open_root
from orchestrator.storage.root import Root
from sweeps.grid import load_grid
from trainer.run_log import METRICS


def compact_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Merge the small result files under the root, whatever grid they are of."""
    from orchestrator.results.compaction import compact

    answer = compact(request_of(grid, words).root)
    if json:
        print_json({"folders": [asdict(done) for done in answer]})
        return EXIT_DONE
    for done in answer:
        nothing = "another process is compacting it" if done.is_busy else "nothing to do"
        text = (
            f"{quantity(done.merged, 'file')} became one of {quantity(done.rows, 'row')}"
            if done.merged
            else nothing
        )
        console_of_output().print(f"{done.address}: {text}", highlight=False, soft_wrap=True)
    return EXIT_DONE


def cancel_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Cancel every job of a grid; running cells checkpoint first, and stay as they are."""
    from orchestrator.backends.slurm.registry import JobRegistry, cancel
    from slurm.monitor import squeue

    name = load_grid(grid).name
    options, _ = parse(words)
    registry = JobRegistry(answering_root(options).grid(name).folder / "slurm", name)
    arrays = {job.array.name for job in registry.known().values()}
    jobs = [job for job in squeue().values() if job.comment in arrays and not job.has_ended]
    cancel([job.job_id for job in jobs])
    if json:
        print_json({"grid": name, "cancelled": [job.job_id for job in jobs]})
        return EXIT_DONE
    print_text(
        f"{name}: {quantity(len(jobs), 'job')} cancelled; `launch` goes on from their checkpoints."
    )
    return EXIT_DONE


def logs_verb(cell: str, words: Sequence[str], *, json: bool) -> int:
    """Print what a cell's newest attempt and its job wrote; with `-f` until Ctrl-C.

    Raises:
        ValueError: the cell has no log yet.
    """
    flags, rest = split_flags(words)
    options, _ = parse(rest)
    root = answering_root(options)
    if json and "-f" in flags:
        raise ValueError("-f prints what comes, --json one answer: leave one of them away.")
    printed: dict[Path, int] = {}  # bytes of each file
    with suppress(KeyboardInterrupt):
        while True:
            files = _log_files(cell, root)
            if not files and not printed:
                raise ValueError(_no_log(cell, root, options.root))
            if json:
                texts = {str(path): path.read_text(errors="replace") for path in files}
                print_json({"cell": cell, "files": texts})
                break
            for path in files:
                printed[path] = _print_from(path, printed.get(path, 0))
            if "-f" not in flags:
                break
            time.sleep(root.look_seconds)
    return EXIT_DONE


def doctor_verb(target: str, words: Sequence[str], *, json: bool) -> int:
    """Print what works here; with `--drill` also run fake trials in Slurm."""
    from orchestrator.doctor import checks
    from orchestrator.doctor.drill import drill

    flags, rest = split_flags(words)
    options, _ = parse(rest)
    root, done = open_root(options.root, options.scratch), []
    show = print_note if json else print_text
    wanted = [checks.examine(options, root)]
    if "--drill" in flags:
        wanted.append(drill(options, root, show))
    for check in chain(*wanted):
        done.append(check)
        checks.show_check(check, show)
    if json:
        print_json({"checks": [asdict(check) for check in done]})
    return checks.exit_code_of(done)


def _no_log(cell: str, root: Root, address: str) -> str:
    """Says that a cell has no log, and which cells have one that may be meant."""
    from orchestrator.results.store import read_rows

    runs = root.runs.iterdir() if root.runs.is_dir() else ()
    keys = sorted({path.name for path in runs} | {row.key for row in read_rows(root)})
    text = f"{cell} has no log under root={address}"
    if cell in keys:
        return f"{text}: its run folder is gone, or it ended before an attempt began; see `status`."
    matching = [key for key in keys if key.startswith(f"{cell}.") or fnmatch(key, cell)]
    if matching:
        return f"{text}. A cell is named with its seed: {listed(matching, 8)}."
    return f"{text}; see `status`.{did_you_mean(cell, keys, most=3)}"


def _log_files(cell: str, root: Root) -> list[Path]:
    """The messages and losses of a cell's newest attempt, and what its job printed."""
    from orchestrator.backends.slurm.registry import job_logs

    run = root.local_copy(cell)
    log = run.log(run.newest_attempt())
    ranks = sorted(log.parent.glob(f"{log.stem}-rank-*{log.suffix}"))
    files = [log, *ranks, run.folder / METRICS]
    files += job_logs(cell, root.folder / "grids")
    return [path for path in files if path.exists()]


def _print_from(path: Path, offset: int) -> int:
    """Print a file from a byte on; returns where it ends now."""
    with path.open("rb") as file:
        if file.seek(0, 2) > offset:
            if offset == 0:
                print_text(f"==> {path}", "bold")
            file.seek(offset)
            sys.stdout.write(file.read().decode(errors="replace"))
            sys.stdout.flush()
        return file.tell()
