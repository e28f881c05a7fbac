"""The verbs that run cells, and those that show where the cells stand.

What only one verb needs it imports itself: `status` is called often and must start fast.
"""

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from orchestrator.commands.output import console_of_output, print_json
from orchestrator.commands.request import plan_now, request_of, split_words
from orchestrator.display.format import clock
from orchestrator.display.status import cost_table, counts, plan_json, plan_picture, status_picture
from orchestrator.planning.plan import EXIT_DONE, RESUMED, LaunchRequest, exit_code

_MOST_CELLS = 120  # that plan and status show; the paper's grid has 100
_SLURM_SECONDS = 30.0  # between two requests of `watch` to Slurm


def plan_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Print what a launch would run, for how long and for how much."""
    from orchestrator.commands.forecast import WORDS, outlook
    from orchestrator.planning.cards import card_gib, gib_per_rank, too_large
    from orchestrator.printers.forecast import forecast_json

    said, rest = split_words(words, "show", *WORDS)
    most = _most_cells(said.get("show", str(_MOST_CELLS)))
    request = request_of(grid, rest)
    ahead = outlook(request, plan_now(request, needs_data=True), said)
    plan = ahead.plan
    chosen = request.chosen(plan)
    keys = {cell.key for cell in chosen}
    options, console = request.options, console_of_output()
    needs = {cell.key: gib_per_rank(cell.config, options.ranks) for cell in plan.cells}
    if json:
        more = {"forecast": forecast_json(ahead.forecast, ahead.bought)}
        print_json(plan_json(plan, keys, needs, more=more))
        return EXIT_DONE
    card = card_gib(options)
    shown_needs = needs if card or options.gpus_per_rank > 0 else None
    console.print(plan_picture(plan, keys, shown_needs, most=most))
    console.print(cost_table(plan, keys))
    for table in ahead.tables():
        console.print(table)
    known = [cell.seconds for cell in chosen if cell.seconds is not None]
    length = f", about {clock(sum(known))} of work one after the other" if known else ""
    console.print(f"{counts(plan)}; {len(chosen)} would run{length}", highlight=False)
    for line in ahead.lines:
        console.print(line, highlight=False, soft_wrap=True)
    if options.seeds == "auto":
        _print_design(request, console)
    problem = too_large({cell.key: cell.config for cell in chosen}, options, card)
    if problem:
        console.print(Text(problem, "yellow"), soft_wrap=True)
    return EXIT_DONE


def _print_design(request: LaunchRequest, console: Console) -> None:
    """The design of seeds=auto."""
    from orchestrator.commands.seeds import design_lines, next_block

    for line in design_lines(next_block(request).design):
        console.print(line, highlight=False)


def launch_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Run what is missing, cut off or failed."""
    return _launch(request_of(grid, words), json=json)


def resume_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Run what failed or was cut off."""
    return _launch(replace(request_of(grid, words), states=RESUMED), json=json)


def work_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Run cells that no process runs, one after the other, beside launches and other workers."""
    from orchestrator.display.screen import Screen
    from orchestrator.worker import run_worker, seconds_of

    chosen, rest = split_words(words, "while_idle")
    idle_seconds = seconds_of(chosen.get("while_idle", "0s"))
    request = request_of(grid, rest)
    if request.options.seeds == "auto":
        from orchestrator.commands.seeds import stated_block

        request = replace(request, cells=stated_block(request).cells)
    screen = Screen(console_of_output(json=json), request.root)
    code = run_worker(request, screen, idle_seconds=idle_seconds)
    _print_end(request, json=json)
    return code


def status_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Print where the cells stand, the interesting ones first."""
    chosen, rest = split_words(words, "show")
    most = _most_cells(chosen.get("show", str(_MOST_CELLS)))
    plan = plan_now(request_of(grid, rest))
    console = console_of_output()
    if json:
        print_json(plan_json(plan, ()))
    else:
        console.print(status_picture(plan, width=console.width, most=most))
    return exit_code(plan)


def watch_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Show where the cells stand until they end."""
    from orchestrator.display.watch import watch

    request = request_of(grid, words)
    console = console_of_output(json=json)
    plan = watch(lambda: plan_now(request, pause_seconds=_SLURM_SECONDS), console)
    if json:
        print_json(plan_json(plan, ()))
    return exit_code(plan)


def _launch(request: LaunchRequest, *, json: bool) -> int:
    """Launch, with seeds=auto block after block, each with a screen of its own."""
    from orchestrator.commands.forecast import refuse_past
    from orchestrator.display.screen import Screen
    from orchestrator.launch import launch

    refuse_past(request.options)
    console = console_of_output(json=json)

    def run(block: LaunchRequest) -> int:
        return launch(block, Screen(console, block.root))

    if request.options.seeds == "auto":
        from orchestrator.commands.seeds import launch_until_settled, next_block

        code = launch_until_settled(request, run, Screen(console, request.root).message)
        request = replace(request, cells=next_block(request).cells)
    else:
        code = run(request)
    _print_end(request, json=json)
    return code


def _print_end(request: LaunchRequest, *, json: bool) -> None:
    """For a program, the states after cells were run."""
    if json:
        print_json(plan_json(plan_now(request), ()))


def _most_cells(value: str) -> int | None:
    """How many cells show=VALUE shows; None for all."""
    if value == "all":
        return None
    if not (value.isdecimal() and int(value)):
        raise ValueError(f"show={value}: give a number of cells, or all.")
    return int(value)
