"""What each verb of the command line does.

A verb imports what it alone needs: `status` is asked often, and should answer at once.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from rich.console import Console

from orchestrator.options import parse
from orchestrator.order import EXIT_DONE, Order, exit_code
from orchestrator.plan import RESUMED, Plan
from orchestrator.queued import with_queued
from orchestrator.status import as_json, counts, plan_table
from orchestrator.status_table import status_picture
from orchestrator.wording import clock

_MOST = 120  # cells that status shows; the paper's grid has 100
_SLURM_SECONDS = 30.0  # between two requests of `watch` to Slurm
_PLAIN_WIDTH = 200  # columns where no terminal says its own


class Verb(Protocol):
    """A verb: grid and key=value words in, exit code out."""

    def __call__(self, grid: str, words: Sequence[str], *, json: bool) -> int:
        """Do it."""


def plan_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Print what a launch would run."""
    order = _order(grid, words)
    plan = _seen(order)
    chosen = order.chosen(plan)
    keys = {cell.key for cell in chosen}
    console = _console()
    if json:
        console.out(as_json(plan, keys), highlight=False)
        return EXIT_DONE
    console.print(plan_table(plan, keys))
    known = [cell.seconds for cell in chosen if cell.seconds is not None]
    length = f", about {clock(sum(known))} of work one after the other" if known else ""
    unknown = len(chosen) - len(known)
    more = f"; no comparable cell is done yet for {unknown}" if unknown else ""
    console.print(f"{counts(plan)}; {len(chosen)} would run{length}{more}", highlight=False)
    return EXIT_DONE


def launch_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Run what is missing, cut off or failed."""
    return _run(_order(grid, words))


def resume_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Run what failed or was cut off."""
    return _run(replace(_order(grid, words), states=RESUMED))


def status_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Print where the cells stand, the interesting ones first."""
    most, rest = _shown(words)
    plan = _seen(_order(grid, rest))
    console = _console()
    if json:
        console.out(as_json(plan, ()), highlight=False)
    else:
        console.print(status_picture(plan, width=console.width, most=most))
    return exit_code(plan)


def watch_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Show where the cells stand until they end."""
    from orchestrator.watch import watch

    order = _order(grid, words)
    return exit_code(watch(lambda: _seen(order, pause_seconds=_SLURM_SECONDS), _console()))


def cancel_verb(grid: str, words: Sequence[str], *, json: bool) -> int:
    """Cancel the jobs of a grid."""
    from orchestrator import slurm_commands

    return slurm_commands.cancel_verb(grid, words, json=json)


def _reading(name: str) -> Verb:
    """A verb that reads results."""

    def verb(grid: str, words: Sequence[str], *, json: bool) -> int:
        from orchestrator import reading_commands

        return reading_commands.VERBS[name](grid, words, json=json)

    return verb


def _shown(words: Sequence[str]) -> tuple[int | None, list[str]]:
    """How many cells to show, None for all, and the other words."""
    most: int | None = _MOST
    for word in words:
        key, _, value = word.partition("=")
        if key == "show":
            if value != "all" and not (value.isdecimal() and int(value)):
                raise ValueError(f"show={value}: give a number of cells, or all.")
            most = None if value == "all" else int(value)
    return most, [word for word in words if word.partition("=")[0] != "show"]


def _run(order: Order) -> int:
    """Launch with a screen of its own."""
    from orchestrator.launch import launch
    from orchestrator.screen import Screen

    return launch(order, Screen(_console()))


def _order(grid: str, words: Sequence[str]) -> Order:
    options, overrides = parse(words)
    return Order(grid, options, overrides)


def _seen(order: Order, *, pause_seconds: float = 0.0) -> Plan:
    """The states now, of cells in Slurm too; what could not be asked is told beside the answer."""
    plan, problem = with_queued(order.plan(), pause_seconds=pause_seconds)
    if problem:
        Console(stderr=True).print(problem, soft_wrap=True, highlight=False, markup=False)
    return plan


def _console() -> Console:
    """The terminal, or plain wide lines."""
    # A launch sends what others print elsewhere; ours stays with the stream of now.
    console = Console(file=sys.stdout)
    width = None if console.is_terminal else _PLAIN_WIDTH
    return Console(file=sys.stdout, width=width)


VERBS: dict[str, Verb] = {
    "plan": plan_verb,
    "launch": launch_verb,
    "resume": resume_verb,
    "status": status_verb,
    "watch": watch_verb,
    **{name: _reading(name) for name in ("tables", "report", "query", "export", "compact")},
    "cancel": cancel_verb,
}
