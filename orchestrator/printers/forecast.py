"""A forecast as tables of a terminal and as JSON: by kind of cell, by table, and in all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from orchestrator.display.format import digits, gibibytes
from orchestrator.forecast.forecast import CellForecast, Line, Span, by_kind, by_table, line_of
from orchestrator.planning.plan import Plan

_HOUR = 3600.0


@dataclass(frozen=True)
class Forecast:
    """What is printed of a forecast.

    Attributes:
        unit: GPU-hours or core-hours.
        price: of one of them; None prints no money.
    """

    kinds: tuple[Line, ...]
    tables: tuple[Line, ...]
    whole: Line
    unit: str
    price: float | None = None

    @classmethod
    def of(
        cls, plan: Plan, cells: Sequence[CellForecast], unit: str, price: float | None
    ) -> "Forecast":
        """The lines of some cells; each cell counts once in all."""
        kinds, tables = tuple(by_kind(cells)), tuple(by_table(plan, cells))
        return cls(kinds, tables, line_of("all", cells), unit, price)


def kind_table(forecast: Forecast) -> Table:
    """What was timed of each kind of cell, the longest first."""
    table = _table("kind of cell", "cells", "ms a step", "ms an image", "GiB", "hours")
    for line in forecast.kinds:
        timing = line.cells[0].timing
        if timing is None:
            table.add_row(line.name, str(len(line.cells)), "-", "-", "-", _hours(line.seconds))
            continue
        steps = [1000.0 * step for step in timing.steps]
        table.add_row(
            line.name,
            str(len(line.cells)),
            _interval(min(steps), sum(steps) / len(steps), max(steps)),
            digits(1000.0 * timing.image),
            gibibytes(line.gib),
            _hours(line.seconds),
        )
    return table


def total_table(forecast: Forecast) -> Table:
    """Hours, memory and money by table, the longest first, and in all."""
    money = () if forecast.price is None else (f"money at {forecast.price:g}",)
    table = _table("table", "cells", "work", "hours", forecast.unit, "GiB", *money)
    for line in (*forecast.tables, forecast.whole):
        held, price = line.held_seconds, forecast.price
        table.add_row(
            line.name,
            str(len(line.cells)),
            f"{100.0 * line.work / (forecast.whole.work or 1.0):.0f}%",
            _hours(line.seconds),
            _hours(held),
            gibibytes(line.gib),
            *(() if price is None else (_hours(held.times(price) if held else None),)),
        )
    return table


def forecast_json(forecast: Forecast, bought: Sequence[str] | None) -> dict[str, Any]:
    """The same for programs.

    Args:
        forecast: all lines.
        bought: keys of the cells that a budget buys; None without one.
    """

    def plain(line: Line) -> dict[str, Any]:
        return {
            "name": line.name,
            "cells": [cell.key for cell in line.cells],
            "work": line.work / (forecast.whole.work or 1.0),
            "hours": _three(line.seconds, 1.0),
            forecast.unit.replace("-", "_").lower(): _three(line.held_seconds, 1.0),
            "money": _three(line.held_seconds, forecast.price),
            "gib": line.gib,
        }

    lines = {"kinds": forecast.kinds, "tables": forecast.tables}
    plain_lines = {name: [plain(line) for line in group] for name, group in lines.items()}
    return {**plain_lines, "all": plain(forecast.whole), "bought": bought}


def _table(*names: str) -> Table:
    table = Table(box=None, header_style="bold")
    for name in names:
        is_text = name in ("kind of cell", "table")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    return table


def _hours(span: Span | None) -> str:
    """Hours with their interval, if there is one."""
    return (
        "-" if span is None else _interval(*(n / _HOUR for n in (span.low, span.middle, span.high)))
    )


def _interval(low: float, middle: float, high: float) -> str:
    return digits(middle) if low == high else f"{digits(middle)} ({digits(low)} to {digits(high)})"


def _three(span: Span | None, factor: float | None) -> list[float] | None:
    """Low, middle and high, in hours times a factor."""
    if span is None or factor is None:
        return None
    return [n / _HOUR * factor for n in (span.low, span.middle, span.high)]
