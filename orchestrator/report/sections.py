"""The data of each section of a report; its markup is in the template of the same name."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.display.format import clock
from orchestrator.planning.plan import State
from orchestrator.printers.explain import formula
from orchestrator.printers.html import html
from orchestrator.report.charts import class_panels, method_names, panels
from orchestrator.report.confusion import confusion_matrices
from orchestrator.report.data import ReportData
from orchestrator.report.html import anchor
from orchestrator.results.row import Row
from orchestrator.statistics.compare import Comparison, comparisons
from orchestrator.statistics.text import method_of, p_text, sentence
from orchestrator.tables.filled import FilledTable
from orchestrator.tables.text import NamedEntry, named_entries, signed

if TYPE_CHECKING:
    from markupsafe import Markup

Section = dict[str, Any]  # variables of a template

_TROUBLED = (State.failed, State.drifted, State.interrupted)


def summary(data: ReportData) -> Section:
    """Counts, states, and the comparisons in words."""
    plan = data.plan
    counts = [(state.value, plan.count(state)) for state in State]
    return {
        "done": plan.count(State.done),
        "total": len(plan.cells),
        "failed": plan.count(State.failed),
        "seeds": len({row.seed for row in data.rows if row.status == "done"}),
        "hours": _device_hours(data.rows, _hours_of(data.rows)),
        "hours_of": _hours_of(data.rows),
        "commits": len({row.git_commit for row in data.rows}),
        "states": [(name, count) for name, count in counts if count],
        "sentences": [
            (filled.table.name, sentence(comparison, filled.table.decimals))
            for filled in data.tables
            for comparison in comparisons(filled)
            if comparison.is_main
        ],
        "method": " ".join(dict.fromkeys(map(method_of, data.tables))),
    }


def tables(data: ReportData) -> Section:
    """Every table, each number linked to its runs, with its comparisons below."""
    return {
        "tables": [
            {
                "name": filled.table.name,
                "html": html(filled, _link),
                "comparisons": [
                    _compared(comparison, filled.table.decimals)
                    for comparison in comparisons(filled)
                ],
            }
            for filled in data.tables
        ]
    }


def curves(data: ReportData) -> Section:
    """Learning curves and mask ratios of every protocol."""
    return {
        "panels": [
            {
                "title": panel.title,
                "charts": [
                    (title, _drawn(chart))
                    for title, chart in (("mIoU", panel.scores), ("Mask ratio", panel.ratios))
                    if chart is not None
                ],
            }
            for panel in panels(data)
        ]
    }


def classes(data: ReportData) -> Section:
    """Which classes gain and which lose."""
    return {
        "panels": [
            {
                "title": f"{filled.table.title}: {panel.title}",
                "pairs": panel.pairs,
                "chart": _drawn(panel.chart),
            }
            for filled in data.tables
            for panel in class_panels(filled)
        ]
    }


def confusion(data: ReportData) -> Section:
    """Which classes are taken for which, method by method."""
    return {
        "grid": data.plan.grid.word,
        "matrices": [
            (f"{filled.table.title}: {matrix.title}", matrix)
            for filled in data.tables
            for matrix in confusion_matrices(filled)
        ],
    }


def pictures(data: ReportData) -> Section:
    """Images with the predictions of two runs, for each table that compares two methods."""
    return {"tables": data.pictures}


def cost(data: ReportData) -> Section:
    """Hours and memory by method, of the runs that count."""
    names = method_names(data.tables, data.plan.grid.cells)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in data.rows:
        if row.status == "done":
            name = names.get((row.method, row.loss), f"{row.method} {row.loss}")
            groups.setdefault((name, f"{row.recipe}, {row.backbone}"), []).append(row)
    every = [row for rows in groups.values() for row in rows]
    unit = _hours_of(every)
    lines = [CostLine.of(labels, rows, unit) for labels, rows in groups.items()]
    if every:
        lines.append(CostLine.of(("All", ""), every, unit))
    return {"lines": lines, "hours_of": unit}


def failures(data: ReportData) -> Section:
    """Cells that failed, were cut off or have drifted, each with what is known."""
    return {
        "cells": [cell for cell in data.plan.cells if cell.state in _TROUBLED],
        "grid": data.plan.grid.word,
        "root": data.plan.root.address,
    }


def cells(data: ReportData) -> Section:
    """Every cell with its state."""
    return {"cells": data.plan.cells, "clock": clock}


def origins(data: ReportData) -> Section:
    """Numbers to runs, and the runs with their code and machines."""
    return {
        "tables": [(filled.table.name, list(_origins(filled))) for filled in data.tables],
        "rows": data.rows,
    }


@dataclass(frozen=True)
class CostLine:
    """What the runs of one method took; `hours` is the mean over runs, see `_device_hours`."""

    method: str
    setting: str
    runs: int
    device_hours: float
    hours: float | None
    memory_gib: float
    devices: str

    @classmethod
    def of(cls, labels: tuple[str, str], rows: list[Row], unit: str) -> "CostLine":
        """The line of some runs, of a method and a setting."""
        seconds = [row.seconds for row in rows if row.seconds is not None]
        return cls(
            method=labels[0],
            setting=labels[1],
            runs=len(rows),
            device_hours=_device_hours(rows, unit),
            hours=sum(seconds) / len(seconds) / 3600 if seconds else None,
            memory_gib=max(row.peak_memory_bytes or 0 for row in rows) / 2**30,
            devices=", ".join(sorted({row.device for row in rows if row.device})),
        )


def _hours_of(rows: Iterable[Row]) -> str:
    """What `_device_hours` counts: hours of GPUs, or of CPU ranks where no run had a GPU."""
    ran = [row for row in rows if row.seconds]
    return "CPU-hours" if ran and not any(row.gpu_seconds for row in ran) else "GPU-hours"


def _device_hours(rows: Iterable[Row], unit: str) -> float:
    """Hours of all ranks of some runs, in the unit of `_hours_of`."""
    if unit == "GPU-hours":
        return sum(row.gpu_seconds or 0.0 for row in rows) / 3600
    return sum((row.seconds or 0.0) * (row.world_size or 1) for row in rows) / 3600


def _drawn(chart: Any) -> "Markup":
    """A chart as an element of the page."""
    from markupsafe import Markup

    from orchestrator.report.plots import inline_svg

    return Markup(inline_svg(chart))


def _compared(comparison: Comparison, digits: int) -> dict[str, str | int]:
    """A comparison as the line of a table."""
    ends = ", ".join(signed(value, digits) for value in comparison.interval or ())
    block = f" ({comparison.block})" if comparison.block else ""
    return {
        "name": f"{comparison.new} against {comparison.rival}{block}",
        "n": comparison.n,
        "mean": signed(comparison.mean, digits),
        "interval": f"[{ends}]" if ends else "\u2013",
        "p": p_text(comparison.p),
        "p_holm": p_text(comparison.p_holm),
    }


def _link(named: NamedEntry) -> str | None:
    return f"#{anchor(named.name, 'from')}" if named.entry.results else None


def _origins(filled: FilledTable) -> Iterator[tuple[str, str, list[str]]]:
    """Name, formula and keys of every number that comes from runs."""
    for named in named_entries(filled):
        if named.entry.results:
            keys = dict.fromkeys(row.key for row in named.entry.results)
            yield named.name, formula(filled, named), list(keys)


# Title of each section, in the order of the page.
SECTIONS = {
    "Summary": summary,
    "Tables": tables,
    "Curves": curves,
    "Classes": classes,
    "Confusion": confusion,
    "Pictures": pictures,
    "Cost": cost,
    "Failures": failures,
    "Cells": cells,
    "Provenance": origins,
}
