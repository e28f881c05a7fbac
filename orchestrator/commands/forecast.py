"""The part of `plan` that looks ahead: its words, the probe, and what a budget buys."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.table import Table

from orchestrator.backends.base import refuse_ignored
from orchestrator.commands.output import console_of_output, print_note
from orchestrator.execution.queue import in_start_order
from orchestrator.execution.timing import Timing
from orchestrator.forecast.budget import allowance_of, bought, entries_text
from orchestrator.forecast.forecast import CellForecast, forecast, unit_of, with_forecast
from orchestrator.forecast.probe import is_here, keep, known_timings, num_outdated, probe, untimed
from orchestrator.options import LaunchOptions
from orchestrator.planning.plan import LaunchRequest, Plan, PlannedCell, State
from orchestrator.printers.forecast import Forecast, kind_table, total_table

WORDS = ("probe", "price")


@dataclass(frozen=True)
class Outlook:
    """What `plan` knows about the time to come.

    Attributes:
        plan: with the estimates that follow from timings.
        bought: keys of the cells that a budget buys, in their order; None without one.
        is_printed: whether the words ask for it, or no other estimate can be given.
    """

    plan: Plan
    forecast: Forecast
    bought: list[str] | None
    lines: list[str]
    is_printed: bool

    def tables(self) -> list[Table]:
        """What is printed, the kinds of cells only where some were timed."""
        is_timed = any(cell.timing for cell in self.forecast.whole.cells)
        tables = [total_table(self.forecast)] if self.is_printed else []
        return [kind_table(self.forecast), *tables] if is_timed else tables


def outlook(request: LaunchRequest, plan: Plan, words: Mapping[str, str]) -> Outlook:
    """Forecast the cells that would run, after a probe if that is asked for.

    Args:
        request: the grid and the options of the launch.
        plan: the states.
        words: the values of `WORDS` that were given.

    Raises:
        ValueError: a word with another value, a moment that is over, or backend=auto with a probe.
    """
    refuse_past(request.options)
    price, chosen = _price(words), request.chosen(plan)
    if _is_yes(words, "probe"):
        _probe(request, chosen)
    timings = known_timings(chosen, request.root, request.options)
    cells = forecast(plan, chosen, timings, request.options)
    keys = _bought(request, plan, cells) if request.options.limits else None
    lines = _missing(cells, num_outdated(chosen, request.root, request.options))
    if keys is not None:
        done = {*plan.keys(State.done), *keys}
        lines += entries_text(plan, done, f"complete with {request.options.limits}")
    is_asked = bool(words or timings or request.options.limits)
    shown = Forecast.of(plan, cells, unit_of(cells), price)
    return Outlook(with_forecast(plan, cells), shown, keys, lines, is_asked or bool(lines))


def _probe(request: LaunchRequest, chosen: Sequence[PlannedCell]) -> None:
    """Time the kinds of cells that were not timed yet, where the launch would run them."""
    options, root = request.options, request.root
    refuse_ignored(options)
    if options.backend == "auto":
        raise ValueError("probe=yes times one back end: say backend=ray or backend=slurm.")
    firsts = untimed(chosen, root, options)
    if is_here(options) or not firsts:
        probe(firsts, root, options, print_note)
        return
    from orchestrator.commands.probes import run_probes
    from orchestrator.display.screen import Screen

    screen = Screen(console_of_output(json=True), root)
    outcomes = run_probes(request, list(firsts.values()), screen)
    for kind, cell in firsts.items():
        if cell.key in outcomes and outcomes[cell.key].timing:
            keep(Timing.from_json(outcomes[cell.key].timing), root, kind, options)


def refuse_past(options: LaunchOptions) -> None:
    """Refuse a moment at which nothing could start any more.

    Raises:
        ValueError: `until` is over.
    """
    if options.until and datetime.fromisoformat(options.until).timestamp() <= time.time():
        raise ValueError(f"until={options.until} is over: give a moment to come, in local time.")


def _bought(request: LaunchRequest, plan: Plan, cells: Sequence[CellForecast]) -> list[str]:
    """Keys of the cells that the limits of a launch allow, in its own order."""
    from orchestrator.launch import first_tables

    work = {cell.key: cell.work for cell in cells}
    ordered = in_start_order(cells, work, first_tables(plan))
    limit = allowance_of(plan, cells, request.options)
    return bought(ordered, limit, max(1, request.options.concurrency))


def _missing(cells: Sequence[CellForecast], outdated: int) -> list[str]:
    """What to do where the length of some cells is not known, or was timed with other code."""
    lines = []
    if outdated:
        lines.append(
            f"{outdated} kinds of cells were timed with other code of the training, which does not "
            "count. probe=yes times them again."
        )
    if unknown := sum(cell.seconds is None for cell in cells):
        lines.append(
            f"No comparable cell is done or timed for {unknown} of {len(cells)}: `work` is their "
            "part of all, by steps, pixels and layers. probe=yes times them where they would run."
        )
    return lines


def _price(words: Mapping[str, str]) -> float | None:
    """The price of an hour; None where none was given."""
    text = words.get("price")
    if text is None:
        return None
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0.0 <= price < math.inf:
        raise ValueError(f"price={text}: give the price of a GPU-hour, such as price=2.5.")
    return price


def _is_yes(words: Mapping[str, str], name: str) -> bool:
    """Whether a word says yes."""
    value = words.get(name, "no")
    if value not in ("yes", "no"):
        raise ValueError(f"{name}={value}: known are yes, no.")
    return value == "yes"
