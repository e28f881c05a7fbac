"""The verbs that read results: tables, comparisons, charts, questions and exports."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.table import Table as RichTable
from rich.text import Text

from datasets.wording import quantity
from orchestrator.commands.output import (
    as_typed,
    console_of_output,
    print_json,
    print_note,
    print_text,
    show_files,
)
from orchestrator.commands.request import answering_root, plan_now, request_of, split_words
from orchestrator.display.waiting import SHORT_SECONDS, waiting
from orchestrator.planning.plan import EXIT_DONE, EXIT_UNFINISHED, LaunchRequest, Plan
from orchestrator.printers.explain import explain, explanation_text, explanations_json
from orchestrator.printers.json import tables_json
from orchestrator.printers.manuscript import check_manuscript
from orchestrator.printers.terminal import terminal
from orchestrator.printers.write import write_filled
from orchestrator.results.seed_design import design_for
from orchestrator.results.store import counted_rows, read_rows
from orchestrator.statistics.text import sentences
from orchestrator.storage.root import Root
from orchestrator.tables.fill import fill
from orchestrator.tables.filled import FilledTable
from sweeps.grid_tables import tables_of

EXIT_FINDINGS = 1  # the check of a manuscript found numbers that are not today's

_ROWS_SHOWN = 200  # of the answer to a query
_SETTING = re.compile(r"[+~]*[\w.]+=")  # the path in root=DIR may hold blanks


def tables_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Print the tables and write them; or explain a number; or check a manuscript."""
    chosen, rest = split_words(words, "explain", "check")
    request = request_of(grid, rest)
    plan = request.plan()
    console = console_of_output()
    filled = _filled_tables(request, plan, whole_rows="explain" in chosen)
    if "check" in chosen:
        return _check(Path(chosen["check"]).expanduser(), filled, json=json)
    if "explain" in chosen:
        explanations = explain(
            chosen["explain"],
            filled,
            read_rows(plan.root, cells=plan.grid.cells),
            today=plan.today,
            places=plan.root.places,
        )
        if json:
            print_json(explanations_json(explanations))
        else:
            console.out("\n\n".join(map(explanation_text, explanations)), highlight=False)
        return EXIT_DONE
    if json:
        files = write_filled(filled, plan.root.tables(plan.grid.name))
        plan.root.upload(files)
        print_json(tables_json(filled, files))
        return EXIT_DONE
    for table in filled:
        console.print(terminal(table))
        for text in sentences(table):
            # A terminal would break long lines within words; a file keeps each in one piece.
            console.print(Text(text, style="dim"), soft_wrap=not console.is_terminal)
    show_files(plan.root, write_filled(filled, plan.root.tables(plan.grid.name)), json=False)
    return EXIT_DONE


def diff_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Print how the results differ from another root's, from a commit's, or from the paper's."""
    from orchestrator.printers.grid_diff import diff_json, diff_text, nothing_text
    from orchestrator.statistics.grid_diff import grid_diff, paper_diff
    from orchestrator.tables.sides import filled_sides

    chosen, rest = split_words(words, "with")
    other = chosen.get("with", "")
    if other in ("", "commit:"):
        raise ValueError(
            "diff needs with=ROOT, with=commit:HASH, or with=paper: the results to compare with."
        )
    request = request_of(grid, rest)
    what, colon, commit = other.partition(":")
    there: Root | str | None = None  # the paper's values stand in the tables
    if (what, colon) == ("commit", ":"):
        there = commit
    elif (what, colon) != ("paper", ""):
        there = answering_root(replace(request.options, root=other))
    sides = filled_sides(request, there)
    if there is None:
        diff = paper_diff(sides.here, sides.groups)
    else:
        diff = grid_diff(sides.here, sides.there, sides.groups)
    names = {"here": f"root={request.root.address}", "there": other}
    if not diff.differences:
        raise ValueError(nothing_text(diff, **names))
    epoch = request.options.printed_epoch
    if json:
        print_json(diff_json(diff, grid=sides.grid.name, **names, epoch=epoch))
    else:
        console_of_output().print(diff_text(diff, **names, epoch=epoch))
    return EXIT_DONE


def reproduce_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Train the runs behind a printed number again, and say whether they come out the same."""
    from orchestrator.reproduction.reproduce import (
        Stopped,
        estimate_text,
        order_of,
        reproduce,
        rows_behind,
    )
    from orchestrator.reproduction.verdict import verdicts_json

    chosen, rest = split_words(words, "code")
    code, numbers = chosen.get("code", "row"), [word for word in rest if "=" not in word]
    if len(numbers) != 1:
        raise ValueError(
            "reproduce takes one number or cell: python -m orchestrator reproduce paper "
            "table3/321/ipixmatch/resnet50-p1-1of16; `tables` writes the names of all."
        )
    if code not in ("row", "now"):
        raise ValueError(f"code={code}: known are row, now.")
    request = request_of(grid, [word for word in rest if word not in numbers])
    plan = request.plan()
    filled = _filled_tables(request, plan, whole_rows=False)
    decimals = max(table.table.decimals for table in filled)
    orders = [
        order_of(row, plan.root, request.overrides, with_todays_code=code == "now")
        for row in rows_behind(numbers[0], plan, filled)
    ]
    print_note(estimate_text(orders))
    verdicts = []
    for order in orders:
        try:
            verdicts.append(reproduce(order, plan.root, decimals, print_note))
        except Stopped as stopped:
            print_note(str(stopped))
            if json:
                print_json(verdicts_json(verdicts))
            return EXIT_UNFINISHED
        if not json:
            print_text("\n".join(f"  {line}" for line in verdicts[-1].lines()))
    if json:
        print_json(verdicts_json(verdicts))
    return EXIT_FINDINGS if any(v.kind == "different" for v in verdicts) else EXIT_DONE


def query_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Answer a question in SQL about the grid's cells."""
    from orchestrator.results.query import VIEWS, query

    questions = [word for word in words if " " in word.strip() and not _SETTING.match(word)]
    if len(questions) != 1:
        raise ValueError(
            f"query takes one question: python -m orchestrator query {shlex.quote(grid)} "
            '"SELECT key, '
            f'best_miou_percent FROM counted". Views: {", ".join(VIEWS)}.'
        )
    request = request_of(grid, [word for word in words if word not in questions])
    plan = request.plan()
    answer = query(plan.root, questions[0], cells=plan.grid.cells, today=plan.today)
    console = console_of_output()
    if json:
        print_json(answer.to_pylist())
        return EXIT_DONE
    shown = RichTable(*answer.column_names, box=None, header_style="bold")
    for line in answer.slice(0, _ROWS_SHOWN).to_pylist():
        shown.add_row(*(Text(_rounded(value)) for value in line.values()))
    console.print(shown)
    more = answer.num_rows - _ROWS_SHOWN
    if more > 0:
        console.print(f"and {quantity(more, 'row')} more; --json prints them all", highlight=False)
    return EXIT_DONE


def _rounded(value: object) -> str:
    """A value of an answer for people: numbers with four decimals; --json has all."""
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 5e-5 else str(round(value, 4))
    return "" if value is None else str(value)


def report_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Write the grid's page and its pictures."""
    from orchestrator.report.page import report

    request = request_of(grid, words)
    plan, parts = plan_now(request), ["cells"]
    with waiting(
        as_typed(sys.stderr),
        f"Making the report of {grid}",
        progress=lambda: parts[-1],
        quiet_seconds=SHORT_SECONDS,
    ):
        paths = report(plan, request.options.printed_epoch, parts.append)
    show_files(request.root, paths, json=json)
    return EXIT_DONE


def figures_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Write the charts of the grid's report as PDF, SVG and PNG."""
    from orchestrator.report.figures import write_figures

    request = request_of(grid, words)
    paths = write_figures(request.plan(), request.options.printed_epoch)
    if not paths:
        address = request.root.address
        raise ValueError(f"No run of {grid} has logged an epoch under root={address}.")
    show_files(request.root, paths, json=json)
    return EXIT_DONE


def export_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Write the counted runs for another tool."""
    from orchestrator.export.formats import EXPORT_KINDS, export

    chosen, rest = split_words(words, "to")
    kind = chosen.get("to", "csv")
    if kind not in EXPORT_KINDS:
        raise ValueError(f"to={kind}: known are {', '.join(EXPORT_KINDS)}.")
    plan = request_of(grid, rest).plan()
    show_files(plan.root, [export(plan, kind)], json=json)
    return EXIT_DONE


def _filled_tables(request: LaunchRequest, plan: Plan, *, whole_rows: bool) -> list[FilledTable]:
    """The grid's tables with the rows that count."""
    tables = tables_of(plan.grid)
    cells = [cell for table in tables for cell in table.cells]
    rows = counted_rows(plan.root, cells, plan.today, per_class=whole_rows)
    epoch = request.options.printed_epoch
    design = design_for(plan.root, plan.grid, plan.today, epoch)
    return [fill(t, rows, epoch=epoch, today=plan.today, design=design) for t in tables]


def _check(path: Path, filled: Sequence[FilledTable], *, json: bool) -> int:
    """Compare the numbers of a manuscript with today's."""
    checked = check_manuscript(path, filled)
    if json:
        print_json(asdict(checked))
        return EXIT_FINDINGS if checked.findings else EXIT_DONE
    for finding in checked.findings:
        print_text(str(finding))
    lines = len({finding.where for finding in checked.findings})
    print_text(
        f"{path}: {quantity(checked.numbers, 'number')}, "
        f"{quantity(len(checked.findings), 'finding')} in {quantity(lines, 'line')}"
    )
    return EXIT_FINDINGS if checked.findings else EXIT_DONE
