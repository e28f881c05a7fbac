"""Verbs that read results: tables, report, query, export; and compact, which tidies them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from orchestrator.explain import as_json, as_text, explain
from orchestrator.manuscript import check_manuscript
from orchestrator.options import parse
from orchestrator.order import EXIT_DONE, Order
from orchestrator.places import Places
from orchestrator.plan import Plan
from orchestrator.results import counted_rows, read_rows
from orchestrator.statistics.wording import sentences
from orchestrator.store import enter, put_folder
from orchestrator.tables.fill import fill
from orchestrator.tables.filled import FilledTable
from orchestrator.tables.terminal import terminal
from orchestrator.tables.write import write_filled
from sweeps.grid import load_grid
from sweeps.own_tables import tables_of

EXIT_FOUND = 1  # the check of a manuscript found something

_PLAIN_WIDTH = 200
_ROWS_SHOWN = 200


def tables_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Print the tables and write them; or explain a number; or check a manuscript."""
    chosen, rest = _taken(words, "explain", "check")
    order = _order(grid, rest)
    plan = order.plan()
    console = _console()
    filled = _filled(order, plan, whole_rows="explain" in chosen)
    if "check" in chosen:
        return _check(Path(chosen["check"]).expanduser(), filled, console)
    if "explain" in chosen:
        rows = read_rows(plan.root)
        found = explain(chosen["explain"], filled, rows)
        text = as_json(found) if json else "\n\n".join(map(as_text, found))
        console.out(text, highlight=False)
        return EXIT_DONE
    for table in filled:
        console.print(terminal(table))
        for text in sentences(table):
            console.print(Text(text, style="dim"), soft_wrap=True)
    _tell(plan.root, write_filled(filled, Places.at(plan.root).tables(plan.grid.name)))
    return EXIT_DONE


def report_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Write the grid's page."""
    from orchestrator.report.door import report

    order = _order(grid, words)
    _tell(order.options.root, [report(order.plan(), order.options.epoch)])
    return EXIT_DONE


def query_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Answer a question in SQL about the grid's cells."""
    from orchestrator.query import VIEWS, query

    asked = [word for word in words if " " in word.strip()]
    if len(asked) != 1:
        raise ValueError(
            'query takes one question: python -m orchestrator query GRID "SELECT key, '
            f'best_miou_percent FROM counted". Views: {", ".join(VIEWS)}.'
        )
    order = _order(grid, [word for word in words if word not in asked])
    answer = query(order.options.root, asked[0], cells=load_grid(grid).cells)
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
    from orchestrator.exporters.door import KINDS, export

    chosen, rest = _taken(words, "to")
    kind = chosen.get("to", "csv")
    if kind not in KINDS:
        raise ValueError(f"to={kind}: known are {', '.join(KINDS)}.")
    root = _order(grid, rest).options.root
    _tell(root, [export(load_grid(grid), root, kind)])
    return EXIT_DONE


def compact_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Put the small result files under the root into one; the grid only names the root's user."""
    from orchestrator.compaction import compact

    for done in compact(_order(grid, words).options.root):
        busy = "another process is compacting it" if done.is_busy else "nothing to do"
        text = f"{done.merged} files became one of {done.rows} rows" if done.merged else busy
        _console().print(f"{done.place}: {text}", highlight=False, soft_wrap=True)
    return EXIT_DONE


def _tell(root: str, paths: Sequence[Path]) -> None:
    """Say where the files lie, and put them under an object store as well."""
    put = put_folder(root, Places.at(root).printed, paths)
    for path in paths:
        _console().print(str(path), highlight=False, soft_wrap=True)
    if put:
        more = f"{len(put)} files, also under {Places.at(root).url}"
        _console().print(more, highlight=False, soft_wrap=True)


def _filled(order: Order, plan: Plan, *, whole_rows: bool) -> list[FilledTable]:
    tables = tables_of(plan.grid)
    cells = [cell for table in tables for cell in table.cells]
    rows = counted_rows(plan.root, cells, per_class=whole_rows)
    epoch = order.options.epoch
    return [fill(table, rows, epoch=epoch, expected=plan.expected) for table in tables]


def _check(path: Path, filled: Sequence[FilledTable], console: Console) -> int:
    found = check_manuscript(path, filled)
    for finding in found.findings:
        console.print(str(finding), highlight=False, soft_wrap=True, markup=False)
    wrong = len({finding.place for finding in found.findings})
    text = f"{path}: {found.numbers} numbers, {len(found.findings)} findings in {wrong} lines"
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    return EXIT_FOUND if found.findings else EXIT_DONE


def _taken(words: Sequence[str], *keys: str) -> tuple[dict[str, str], list[str]]:
    """The values of some keys, and the other words."""
    pairs = [word.partition("=") for word in words]
    chosen = {key: value for key, equals, value in pairs if equals and key in keys}
    return chosen, [word for word in words if word.partition("=")[0] not in keys]


def _order(grid: str, words: Sequence[str]) -> Order:
    options, overrides = parse(words)
    enter(options.root, options.scratch)
    return Order(grid, options, overrides)


def _console() -> Console:
    """The terminal, or plain wide lines."""
    console = Console(file=sys.stdout)
    return console if console.is_terminal else Console(file=sys.stdout, width=_PLAIN_WIDTH)


VERBS = {
    "tables": tables_verb,
    "report": report_verb,
    "query": query_verb,
    "export": export_verb,
    "compact": compact_verb,
}
