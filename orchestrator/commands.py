"""What each verb of the command line does, in the order of the help.

What only one verb needs it imports itself: `status` is called often and must start fast.
"""

import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TextIO

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from orchestrator.backends.slurm.queued import with_queued_jobs
from orchestrator.display.format import clock
from orchestrator.display.status import cost_table, counts, plan_json, plan_table, status_picture
from orchestrator.options import LaunchOptions, parse
from orchestrator.planning.cards import card_gib, gib_per_rank, too_large
from orchestrator.planning.plan import (
    EXIT_DONE,
    EXIT_UNFINISHED,
    RESUMED,
    LaunchRequest,
    Plan,
    exit_code,
)
from orchestrator.printers.explain import explain, explanation_text, explanations_json
from orchestrator.printers.manuscript import check_manuscript
from orchestrator.printers.terminal import terminal
from orchestrator.printers.write import write_filled
from orchestrator.results.store import counted_rows, read_rows
from orchestrator.statistics.text import sentences
from orchestrator.storage.open import open_root
from orchestrator.storage.root import Root
from orchestrator.tables.fill import fill
from orchestrator.tables.filled import FilledTable
from sweeps.grid import load_grid
from sweeps.grid_tables import tables_of
from trainer.run_log import METRICS

EXIT_FINDINGS = 1  # the check of a manuscript found numbers that are not today's

_MOST_CELLS = 120  # that status shows; the paper's grid has 100
_ROWS_SHOWN = 200  # of the answer to a query
_PLAIN_WIDTH = 200  # columns where the output is no terminal
_SETTING = re.compile(r"[+~]*[\w.]+=")  # the path in root=DIR may hold blanks
_SLURM_SECONDS = 30.0  # between two requests of `watch` to Slurm


class Verb(Protocol):
    """A verb: grid and key=value words in, exit code out."""

    def __call__(self, grid: str, words: Sequence[str], *, json: bool) -> int:
        """Run the verb; returns the exit code."""


def plan_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Print what a launch would run."""
    request = _request(grid, words)
    plan = _plan(request)
    chosen = request.chosen(plan)
    keys = {cell.key for cell in chosen}
    options, console = request.options, _console()
    needs = {cell.key: gib_per_rank(cell.config, options.ranks) for cell in plan.cells}
    if json:
        console.out(plan_json(plan, keys, needs), highlight=False)
        return EXIT_DONE
    card = card_gib(options)
    console.print(plan_table(plan, keys, needs if card or options.gpus_per_rank > 0 else None))
    console.print(cost_table(plan, keys))
    known = [cell.seconds for cell in chosen if cell.seconds is not None]
    length = f", about {clock(sum(known))} of work one after the other" if known else ""
    unknown = len(chosen) - len(known)
    more = f"; no comparable cell is done yet for {unknown}" if unknown else ""
    console.print(f"{counts(plan)}; {len(chosen)} would run{length}{more}", highlight=False)
    problem = too_large({cell.key: cell.config for cell in chosen}, options, card)
    if problem:
        console.print(Text(problem, "yellow"), soft_wrap=True)
    return EXIT_DONE


def launch_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Run what is missing, cut off or failed."""
    return _launch(_request(grid, words))


def resume_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Run what failed or was cut off."""
    return _launch(replace(_request(grid, words), states=RESUMED))


def work_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Run cells that no process runs, one after the other, beside launches and other workers."""
    from orchestrator.display.screen import Screen
    from orchestrator.worker import run_worker, seconds_of

    chosen, rest = _split_words(words, "while_idle")
    idle_seconds = seconds_of(chosen.get("while_idle", "0s"))
    request = _request(grid, rest)
    return run_worker(request, Screen(_console(), request.root), idle_seconds=idle_seconds)


def status_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Print where the cells stand, the interesting ones first."""
    chosen, rest = _split_words(words, "show")
    most = _most_cells(chosen.get("show", str(_MOST_CELLS)))
    plan = _plan(_request(grid, rest))
    console = _console()
    if json:
        console.out(plan_json(plan, ()), highlight=False)
    else:
        console.print(status_picture(plan, width=console.width, most=most))
    return exit_code(plan)


def watch_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Show where the cells stand until they end."""
    from orchestrator.display.watch import watch

    request = _request(grid, words)
    return exit_code(watch(lambda: _plan(request, pause_seconds=_SLURM_SECONDS), _console()))


def tables_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Print the tables and write them; or explain a number; or check a manuscript."""
    chosen, rest = _split_words(words, "explain", "check")
    request = _request(grid, rest)
    plan = request.plan()
    console = _console()
    filled = _filled_tables(request, plan, whole_rows="explain" in chosen)
    if "check" in chosen:
        return _check(Path(chosen["check"]).expanduser(), filled, console)
    if "explain" in chosen:
        explanations = explain(
            chosen["explain"],
            filled,
            read_rows(plan.root, cells=plan.grid.cells),
            today=plan.today,
            places=plan.root.places,
        )
        text = (
            explanations_json(explanations)
            if json
            else "\n\n".join(map(explanation_text, explanations))
        )
        console.out(text, highlight=False)
        return EXIT_DONE
    for table in filled:
        console.print(terminal(table))
        for text in sentences(table):
            # A terminal would break long lines within words; a file keeps each in one piece.
            console.print(Text(text, style="dim"), soft_wrap=not console.is_terminal)
    _show_files(plan.root, write_filled(filled, plan.root.tables(plan.grid.name)))
    return EXIT_DONE


def diff_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Print how the results differ from another root's, from a commit's, or from the paper's."""
    from orchestrator.printers.grid_diff import diff_json, diff_text
    from orchestrator.statistics.grid_diff import grid_diff, paper_diff
    from orchestrator.tables.sides import filled_sides

    chosen, rest = _split_words(words, "with")
    other = chosen.get("with", "")
    if not other:
        raise ValueError(
            "diff needs with=ROOT, with=commit:HASH, or with=paper: the results to compare with."
        )
    request = _request(grid, rest)
    what, colon, commit = other.partition(":")
    there: Root | str | None = None  # the paper's values stand in the tables
    if what == "commit" and commit:
        there = commit
    elif (what, colon) != ("paper", ""):
        there = _open_root(replace(request.options, root=other))
    sides = filled_sides(request, there)
    if there is None:
        diff = paper_diff(sides.here, sides.groups)
    else:
        diff = grid_diff(sides.here, sides.there, sides.groups)
    names = {"here": f"root={request.root.address}", "there": other}
    epoch = request.options.printed_epoch
    if json:
        text = diff_json(diff, grid=sides.grid.name, **names, epoch=epoch)
        _console().out(text, highlight=False)
    else:
        _console().print(diff_text(diff, **names, epoch=epoch))
    return EXIT_DONE


def reproduce_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Train the runs behind a printed number again, and say whether they come out the same."""
    from orchestrator.reproduction.reproduce import Stopped, order_of, reproduce, rows_behind
    from orchestrator.reproduction.verdict import verdicts_json

    chosen, rest = _split_words(words, "code")
    code, numbers = chosen.get("code", "row"), [word for word in rest if "=" not in word]
    if len(numbers) != 1:
        raise ValueError(
            "reproduce takes one number or cell: python -m orchestrator reproduce paper "
            "table3/321/ipixmatch/resnet50-p1-1of16; `tables` writes the names of all."
        )
    if code not in ("row", "now"):
        raise ValueError(f"code={code}: known are row, now.")
    request = _request(grid, [word for word in rest if word not in numbers])
    plan = request.plan()
    filled = _filled_tables(request, plan, whole_rows=False)
    decimals = max(table.table.decimals for table in filled)
    orders = [
        order_of(row, plan.root, request.overrides, with_todays_code=code == "now")
        for row in rows_behind(numbers[0], plan, filled)
    ]
    verdicts = []
    for order in orders:
        try:
            verdicts.append(reproduce(order, plan.root, decimals, _said))
        except Stopped as stopped:
            _said(str(stopped))
            return EXIT_UNFINISHED
        if not json:
            _print("\n".join(f"  {line}" for line in verdicts[-1].lines()))
    if json:
        _console().out(verdicts_json(verdicts), highlight=False)
    return EXIT_FINDINGS if any(v.kind == "different" for v in verdicts) else EXIT_DONE


def report_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Write the grid's page and its pictures."""
    from orchestrator.report.page import report

    request = _request(grid, words)
    _show_files(request.root, report(request.plan(), request.options.printed_epoch))
    return EXIT_DONE


def figures_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Write the charts of the grid's report as PDF, SVG and PNG."""
    from orchestrator.report.figures import write_figures

    request = _request(grid, words)
    paths = write_figures(request.plan(), request.options.printed_epoch)
    if not paths:
        address = request.root.address
        raise ValueError(f"No run of {grid} has logged an epoch under root={address}.")
    _show_files(request.root, paths)
    return EXIT_DONE


def query_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Answer a question in SQL about the grid's cells."""
    from orchestrator.results.query import VIEWS, query

    questions = [word for word in words if " " in word.strip() and not _SETTING.match(word)]
    if len(questions) != 1:
        raise ValueError(
            'query takes one question: python -m orchestrator query GRID "SELECT key, '
            f'best_miou_percent FROM counted". Views: {", ".join(VIEWS)}.'
        )
    request = _request(grid, [word for word in words if word not in questions])
    plan = request.plan()
    answer = query(plan.root, questions[0], cells=plan.grid.cells, today=plan.today)
    console = _console()
    if json:
        from json import dumps

        console.out(dumps(answer.to_pylist(), default=str, indent=1), highlight=False)
        return EXIT_DONE
    shown = RichTable(*answer.column_names, box=None, header_style="bold")
    for line in answer.slice(0, _ROWS_SHOWN).to_pylist():
        shown.add_row(*(Text("" if value is None else str(value)) for value in line.values()))
    console.print(shown)
    more = answer.num_rows - _ROWS_SHOWN
    if more > 0:
        console.print(f"and {more} rows more; --json prints them all", highlight=False)
    return EXIT_DONE


def export_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Write the counted runs for another tool."""
    from orchestrator.export.formats import EXPORT_KINDS, export

    chosen, rest = _split_words(words, "to")
    kind = chosen.get("to", "csv")
    if kind not in EXPORT_KINDS:
        raise ValueError(f"to={kind}: known are {', '.join(EXPORT_KINDS)}.")
    plan = _request(grid, rest).plan()
    _show_files(plan.root, [export(plan, kind)])
    return EXIT_DONE


def compact_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Merge the small result files under the root, whatever grid they are of."""
    from orchestrator.results.compaction import compact

    for done in compact(_request(grid, words).root):
        nothing = "another process is compacting it" if done.is_busy else "nothing to do"
        text = f"{done.merged} files became one of {done.rows} rows" if done.merged else nothing
        _console().print(f"{done.address}: {text}", highlight=False, soft_wrap=True)
    return EXIT_DONE


def cancel_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Cancel every job of a grid; running cells checkpoint first, and stay as they are."""
    from orchestrator.backends.slurm.registry import JobRegistry, cancel
    from slurm.monitor import squeue

    name = load_grid(grid).name
    options, _ = parse(words)
    registry = JobRegistry(_open_root(options).grid(name).folder / "slurm", name)
    arrays = {job.array.name for job in registry.known().values()}
    jobs = [job for job in squeue().values() if job.comment in arrays and not job.has_ended]
    cancel([job.job_id for job in jobs])
    _print(f"{name}: {len(jobs)} jobs cancelled; `launch` goes on from their checkpoints.")
    return EXIT_DONE


def logs(cell: str, words: Sequence[str], *, follow: bool) -> int:
    """Print what a cell's newest attempt and its job wrote; with `follow` until Ctrl-C.

    Raises:
        ValueError: the cell has no log yet.
    """
    options, _ = parse(words)
    root = _open_root(options)
    printed: dict[Path, int] = {}  # bytes of each file
    with suppress(KeyboardInterrupt):
        while True:
            files = _log_files(cell, root)
            if not files and not printed:
                raise ValueError(f"{cell} has no log under root={options.root}; see `status`.")
            for path in files:
                printed[path] = _print_from(path, printed.get(path, 0))
            if not follow:
                break
            time.sleep(root.look_seconds)
    return EXIT_DONE


def doctor(words: Sequence[str], *, is_drill: bool) -> int:
    """Print what works here; with a drill, also run fake trials in Slurm."""
    from orchestrator.doctor import checks
    from orchestrator.doctor.drill import drill

    options, _ = parse(words)
    root, done = open_root(options.root, options.scratch), []
    for check in checks.examine(options, root):
        done.append(check)
        checks.show_check(check, _print)
    if is_drill:
        for check in drill(options, root, _print):
            done.append(check)
            checks.show_check(check, _print)
    return checks.exit_code_of(done)


def _request(grid: str, words: Sequence[str]) -> LaunchRequest:
    """The request that the words make, under a root that answers."""
    options, overrides = parse(words)
    return LaunchRequest(grid, _open_root(options), options, overrides)


def _open_root(options: LaunchOptions) -> Root:
    """The root that the options name, once it has answered."""
    root = open_root(options.root, options.scratch)
    root.check()
    return root


def _plan(request: LaunchRequest, *, pause_seconds: float = 0.0) -> Plan:
    """The states now, with those of queued jobs; prints a problem with Slurm to standard error."""
    plan, problem = with_queued_jobs(request.plan(), pause_seconds=pause_seconds)
    if problem:
        _as_typed(sys.stderr).print(problem, soft_wrap=True, highlight=False)
    return plan


def _launch(request: LaunchRequest) -> int:
    """Launch with a screen of its own."""
    from orchestrator.display.screen import Screen
    from orchestrator.launch import launch

    return launch(request, Screen(_console(), request.root))


def _split_words(words: Sequence[str], *keys: str) -> tuple[dict[str, str], list[str]]:
    """The values of some keys, and the other words."""
    pairs = [word.partition("=") for word in words]
    chosen = {key: value for key, _, value in pairs if key in keys}
    return chosen, ["".join(pair) for pair in pairs if pair[0] not in keys]


def _most_cells(value: str) -> int | None:
    """How many cells show=VALUE shows; None for all."""
    if value == "all":
        return None
    if not (value.isdecimal() and int(value)):
        raise ValueError(f"show={value}: give a number of cells, or all.")
    return int(value)


def _filled_tables(request: LaunchRequest, plan: Plan, *, whole_rows: bool) -> list[FilledTable]:
    """The grid's tables with the rows that count."""
    tables = tables_of(plan.grid)
    cells = [cell for table in tables for cell in table.cells]
    rows = counted_rows(plan.root, cells, plan.today, per_class=whole_rows)
    epoch = request.options.printed_epoch
    return [fill(table, rows, epoch=epoch, today=plan.today) for table in tables]


def _check(path: Path, filled: Sequence[FilledTable], console: Console) -> int:
    """Compare the numbers of a manuscript with today's."""
    checked = check_manuscript(path, filled)
    for finding in checked.findings:
        console.print(str(finding), highlight=False, soft_wrap=True)
    lines = len({finding.where for finding in checked.findings})
    text = f"{path}: {checked.numbers} numbers, {len(checked.findings)} findings in {lines} lines"
    console.print(text, highlight=False, soft_wrap=True)
    return EXIT_FINDINGS if checked.findings else EXIT_DONE


def _show_files(root: Root, paths: Sequence[Path]) -> None:
    """Upload printed files under a bucket, and print where they are."""
    urls = root.upload(paths)
    for path in paths:
        _console().print(str(path), highlight=False, soft_wrap=True)
    if urls:
        more = f"{len(urls)} files, also under {root.address}"
        _console().print(more, highlight=False, soft_wrap=True)


def _log_files(cell: str, root: Root) -> list[Path]:
    """The messages and losses of a cell's newest attempt, and what its job printed."""
    from orchestrator.backends.slurm.cell_job import job_logs

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
                _print(f"==> {path}", "bold")
            file.seek(offset)
            sys.stdout.write(file.read().decode(errors="replace"))
            sys.stdout.flush()
        return file.tell()


def _said(text: str) -> None:
    """Print a message that is no part of the answer."""
    _as_typed(sys.stderr).print(text, soft_wrap=True, highlight=False)


def _print(text: str, style: str = "") -> None:
    _as_typed(sys.stdout).print(Text(text, style=style), soft_wrap=True)


def _console() -> Console:
    """The terminal, or wide plain lines where the output is no terminal."""
    # A launch redirects sys.stdout, to catch what Ray prints; without `file` rich would follow.
    console = _as_typed(sys.stdout)
    width = None if console.is_terminal else _PLAIN_WIDTH
    return _as_typed(sys.stdout, width)


def _as_typed(file: TextIO, width: int | None = None) -> Console:
    """A console to which [12] and :car: in a title are no words of its own."""
    return Console(file=file, width=width, markup=False, emoji=False)


VERBS: dict[str, Verb] = {
    "plan": plan_verb,
    "launch": launch_verb,
    "resume": resume_verb,
    "work": work_verb,
    "status": status_verb,
    "watch": watch_verb,
    "tables": tables_verb,
    "diff": diff_verb,
    "reproduce": reproduce_verb,
    "report": report_verb,
    "figures": figures_verb,
    "query": query_verb,
    "export": export_verb,
    "compact": compact_verb,
    "cancel": cancel_verb,
}
