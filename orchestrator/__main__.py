"""`python -m orchestrator VERB GRID [key=value ...]`: runs the verb; errors become exit codes."""

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

HELP = """\
usage: python -m orchestrator VERB GRID [key=value ...] [--json]

  plan    GRID   what would run, why, and for how long
  launch  GRID   run what is missing, cut off or failed; what is done stays
  resume  GRID   run again only what failed or was cut off, from its last checkpoint
  work    GRID [while_idle=10m]   on any machine: run cells nobody runs, one by one, no controller
  status  GRID [show=all|N]   cells: state, epoch, mIoU, speed, time left, where, why
  watch   GRID   the same, kept fresh until nothing can change or Ctrl-C
  tables  GRID [--explain NUMBER|CELL] [--check paper.tex]   print the tables and write them
  diff    GRID with=ROOT|commit:HASH|paper   how the results differ, the largest first, and why
  reproduce GRID NUMBER|CELL [code=now]   train what is behind a number again: the same bits?
  report  GRID   one HTML file: tables, curves, confusion, pictures (also PNG), cost, provenance
  figures GRID   the report's charts for a paper: PDF, SVG, PNG
  query   GRID "SQL"   ask the results (views rows, counted, history, confusion)
  export  GRID to=csv|tensorboard|mlflow|wandb
  compact GRID   many small result files become one
  cancel  GRID   end the grid's Slurm jobs; running cells checkpoint first
  logs    CELL [-f]   what the cell's newest attempt and its job wrote; -f follows
  doctor  [--drill]   what of Ray, Slurm, S3, GPU, data works here; --drill tries jobs in Slurm

GRID is the path of a YAML file, or one of
  {grids}
--json (plan, status) prints {{"cells": [{{"key": ..., "state": ..., ...}}], ...}}; query, diff,
reproduce and tables --explain have it, too.

Options of the launch, with their defaults:
{options}
Any other key=value is a setting of the training for every cell, such as optim.epochs=2
(`python -m trainer --help` lists them).

Exit codes: 0 everything wanted is done; 1 a manuscript's numbers are not today's, or a number
did not come out again; 2 usage or configuration; 10 cells are still to do; 11 some cells failed
for good, or the program itself did; 20 Ray, Slurm or the object store is unreachable. --traceback
prints more of an error.
With root=s3://bucket/prefix (AWS_ENDPOINT_URL and credentials as for all S3 tools) a run trains in
`scratch` and is pushed with every checkpoint; tables, reports and exports are written below
./outputs/BUCKET/PREFIX and put under the root as well. With Slurm, `scratch` holds the jobs' own
files: a folder that login node and nodes share.
Ctrl-C or SIGTERM: running cells checkpoint and end; the same command goes on from there.
With backend=slurm the jobs go on by themselves instead, and the same command watches them again.
"""


# tables: what --explain says
_HAVE_JSON = ("plan", "status", "query", "diff", "reproduce", "tables")

_WITHOUT_GRID = {"doctor": ["--drill"], "logs": ["-f"]}  # verbs, and the flags that they take


def main(words: Sequence[str]) -> int:
    """Run one verb; returns the exit code."""
    try:
        from datasets.import_guard import check_is_ours

        check_is_ours()
    except (ImportError, RuntimeError) as error:
        return _complain(
            f"{error}. Start from the checkout with `python -m orchestrator`, where its own "
            "package `datasets` is found first."
        )
    from datasets.command_errors import without_flag

    words, shows_traceback = without_flag(words)
    return _exit_code_of(lambda: _run(words), shows_traceback=shows_traceback)


def help_text() -> str:
    """The help, with today's grids and options."""
    from orchestrator.options import describe
    from sweeps.grid import grid_names

    return HELP.format(grids=", ".join(grid_names()), options=describe())


def _run(words: Sequence[str]) -> int:
    """Find the verb and its grid, or explain what is wrong with the words."""
    from orchestrator.commands.verbs import VERBS
    from orchestrator.options import joined

    words = joined(words)
    flags = [word for word in words if word.startswith("-")]
    rest = [word for word in words if not word.startswith("-")]
    if not words or {"-h", "--help"} & set(flags):
        print(help_text(), end="")
        return 0 if words else 2
    if rest[:1] and rest[0] in _WITHOUT_GRID:
        return _run_without_grid(rest, flags)
    unknown = [flag for flag in flags if flag != "--json"]
    unknown += [word for word in rest[:1] if word not in VERBS]
    if unknown or not rest:
        verbs = (*VERBS, *_WITHOUT_GRID)
        near = get_close_matches(unknown[0], verbs, n=1) if unknown else []
        hint = f" Did you mean {near[0]}?" if near else ""
        wrong = f"Unknown {unknown[0]!r}.{hint}" if unknown else "No verb."
        return _complain(f"{wrong} Verbs: {', '.join(verbs)}. --help says more.")
    return _run_on_grid(VERBS[rest[0]], rest, json="--json" in flags)


def _run_without_grid(words: Sequence[str], flags: Sequence[str]) -> int:
    """The verbs without a grid: `doctor` and `logs CELL`."""
    from orchestrator.commands import upkeep

    known = _WITHOUT_GRID[words[0]]
    if set(flags) - set(known):
        return _complain(f"{words[0]} takes {', '.join(known)}, not {' '.join(flags)}.")
    if words[0] == "doctor":
        return upkeep.doctor(words[1:], is_drill=bool(flags))
    if len(words) < 2 or "=" in words[1]:
        return _complain("logs needs a cell: python -m orchestrator logs CELL [-f]")
    return upkeep.logs(words[1], words[2:], follow=bool(flags))


def _run_on_grid(verb: Callable[..., int], words: Sequence[str], *, json: bool) -> int:
    """Run a verb on a grid."""
    # The path of a grid's file may hold `=` itself.
    if len(words) < 2 or ("=" in words[1] and not Path(words[1]).expanduser().is_file()):
        return _complain(f"{words[0]} needs a grid: python -m orchestrator {words[0]} demo")
    if json and words[0] not in _HAVE_JSON:
        return _complain(f"{words[0]} has no --json; {', '.join(_HAVE_JSON)} have.")
    return verb(words[1], words[2:], json=json)


def _exit_code_of(run: Callable[[], int], *, shows_traceback: bool) -> int:
    """The exit code of a command; an error becomes a sentence and an exit code."""
    from datasets.command_errors import error_text
    from datasets.errors import Unreachable
    from orchestrator.backends.ray.cluster import ClusterUnreachable
    from orchestrator.storage.file_lock import Busy
    from slurm.commands import SlurmMissing, SlurmSilent

    unreachable = (ClusterUnreachable, SlurmMissing, SlurmSilent, Unreachable)
    codes: dict[type[Exception], int] = {Busy: 10, **dict.fromkeys(unreachable, 20)}
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - every error becomes a sentence and an exit code
        text = getattr(error, "strerror", None) or str(error)
        named = getattr(error, "filename", None)
        text = f"{text}: {named}" if named and str(named) not in text else text
        if isinstance(error, SlurmSilent):
            text = f"Slurm does not answer ({text}). Its jobs go on; try again, or `scontrol ping`."
        otherwise = 2 if isinstance(error, OSError | ValueError) else 11
        text = error_text(error, text, shows_traceback=shows_traceback)
        return _complain(text, code=codes.get(type(error), otherwise))


def _complain(text: str, *, code: int = 2) -> int:
    print(f"orchestrator: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
