"""The first part of a report: where the grid stands, what it says, what it cost, what failed."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from orchestrator.plan import PlannedCell, State
from orchestrator.report.curves import method_names
from orchestrator.report.markup import code, fold, section, table, words
from orchestrator.report.material import Material
from orchestrator.results import Row
from orchestrator.statistics.compare import comparisons
from orchestrator.statistics.wording import METHOD, sentence
from orchestrator.tables.entry_ids import slug
from orchestrator.wording import clock

_TROUBLED = (State.failed, State.drifted, State.interrupted)


def summary(material: Material) -> str:
    """Counts, states, and the comparisons in words."""
    plan = material.plan
    done = plan.count(State.done)
    failed = plan.count(State.failed)
    seeds = len({row.seed for row in material.rows if row.status == "done"})
    hours = sum(row.gpu_seconds or 0.0 for row in material.rows) / 3600
    tiles = [
        ("Cells done", f"{done} <small>of {len(plan.cells)}</small>"),
        ("Failed", str(failed)),
        ("Seeds", str(seeds)),
        ("GPU-hours", f"{hours:.1f}" if hours < 1000 else f"{hours:.0f}"),
        ("Commits", str(len({row.git_commit for row in material.rows}))),
    ]
    facts = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles)
    body = [f'<dl class="tiles">{facts}</dl>', *_states(material)]
    says = [
        (filled.table.name, sentence(found, filled.table.decimals))
        for filled in material.tables
        for found in comparisons(filled)
        if found.is_main
    ]
    if says:
        body.append("<h3>What the numbers say</h3>")
        body += [_list(says), f'<p class="soft">{words(METHOD)}</p>']
    return section("Summary", body)


def costs(material: Material) -> str:
    """Hours and memory by method, of the runs that count."""
    names = method_names(material.tables, material.plan.grid.cells)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in material.rows:
        if row.status == "done":
            name = names.get((row.method, row.loss), f"{row.method} {row.loss}")
            groups.setdefault((name, f"{row.recipe}, {row.backbone}"), []).append(row)
    lines = [_cost(*names, rows) for names, rows in groups.items()]
    every = [row for rows in groups.values() for row in rows]
    if not every:
        return section("Cost", ["<p>No run is done yet.</p>"])
    head = ("Method", "Setting", "Runs", "GPU-hours", "Hours a run", "Peak memory", "Device")
    lines.append(_cost("All", "", every))
    note = (
        "Training and evaluation of the runs that count, summed over their attempts. Runs that "
        "failed, and work that a kill made necessary twice, are not in it."
    )
    caption = "Time and memory by method"
    return section("Cost", [table(caption, head, lines, text=2), f'<p class="soft">{note}</p>'])


def failures(material: Material) -> str:
    """Cells that failed, were cut off or have drifted, each with what is known."""
    troubled = [cell for cell in material.plan.cells if cell.state in _TROUBLED]
    if not troubled:
        return section("Failures", ["<p>None: no cell has failed, was cut off or has drifted.</p>"])
    lines = [
        (code(cell.key), _state(cell.state), f'<div class="wrap">{escape(cell.why)}</div>')
        for cell in troubled
    ]
    body = [table("Cells that need a look", ("Cell", "State", "Why"), lines, text=3)]
    body += [
        fold(f"Error of {cell.key}", f"<pre>{escape(cell.row.error_text)}</pre>")
        for cell in troubled
        if cell.row is not None and cell.row.error_text
    ]
    command = f"python -m orchestrator resume {material.plan.grid.word} root={material.plan.root}"
    body.append(f"<p>To run again what failed or was cut off: {code(command)}</p>")
    return section("Failures", body)


def cells(material: Material) -> str:
    """Every cell with its state."""
    lines = [_cell(cell) for cell in material.plan.cells]
    head = ("Cell", "State", "mIoU (%)", "Epoch", "Time", "Where")
    return section("Cells", [fold(f"All {len(lines)} cells", table("Cells", head, lines, text=2))])


def _states(material: Material) -> Iterator[str]:
    """A bar of the states, and the same in words."""
    counts = [(state, material.plan.count(state)) for state in State]
    there = [(state.value, count) for state, count in counts if count]
    parts = "".join(f'<span class="{name}" style="flex:{count}"></span>' for name, count in there)
    names = "".join(f'<li class="state {name}">{count} {name}</li>' for name, count in there)
    yield f'<div class="bar" aria-hidden="true">{parts}</div><ul class="states">{names}</ul>'


def _list(texts: Sequence[tuple[str, str]]) -> str:
    items = (
        f'<li><a href="#table-{slug(table)}">{escape(table)}</a>: {words(text)}</li>'
        for table, text in texts
    )
    return f'<ul class="says">{"".join(items)}</ul>'


def _cost(name: str, setting: str, rows: Sequence[Row]) -> tuple[str, ...]:
    gpu = sum(row.gpu_seconds or 0.0 for row in rows) / 3600
    seconds = [row.seconds for row in rows if row.seconds is not None]
    memory = max((row.peak_memory_bytes or 0 for row in rows), default=0)
    return (
        escape(name),
        escape(setting),
        str(len(rows)),
        f"{gpu:.2f}",
        f"{sum(seconds) / len(seconds) / 3600:.2f}" if seconds else "&ndash;",
        f"{memory / 2**30:.1f} GiB" if memory else "&ndash;",
        escape(", ".join(_distinct(row.device for row in rows))),
    )


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})


def _state(state: State) -> str:
    return f'<span class="state {state.value}">{state.value}</span>'


def _cell(cell: PlannedCell) -> tuple[str, ...]:
    row = cell.row
    score = row.best_miou_percent if row is not None else None
    return (
        code(cell.key),
        _state(cell.state),
        f"{score:.2f}" if score is not None else "&ndash;",
        str(row.best_epoch) if row is not None and row.best_epoch is not None else "&ndash;",
        clock(row.seconds) if row is not None and row.seconds is not None else "&ndash;",
        escape((row.host or "") if row is not None else ""),
    )
