"""The later parts of a report: tables, pictures, and where every number comes from."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from orchestrator.display.format import clock
from orchestrator.planning.plan import PlannedCell, State
from orchestrator.printers.explain import formula
from orchestrator.printers.html import html
from orchestrator.report.charts import class_pictures, confusions, method_names, panels
from orchestrator.report.data import ReportData
from orchestrator.report.html import anchor, code, fold, section, table, words
from orchestrator.report.pictures import Box, Figure, Shot, figures
from orchestrator.results.store import Row
from orchestrator.statistics.compare import Comparison, comparisons
from orchestrator.statistics.text import METHOD, p_text, sentence
from orchestrator.tables.filled import FilledTable
from orchestrator.tables.text import Named, named_entries, signed, slug

_TROUBLED = (State.failed, State.drifted, State.interrupted)


def summary(material: ReportData) -> str:
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


def costs(material: ReportData) -> str:
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


def failures(material: ReportData) -> str:
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
    command = (
        f"python -m orchestrator resume {material.plan.grid.word} root={material.plan.root.address}"
    )
    body.append(f"<p>To run again what failed or was cut off: {code(command)}</p>")
    return section("Failures", body)


def cells(material: ReportData) -> str:
    """Every cell with its state."""
    lines = [_cell(cell) for cell in material.plan.cells]
    head = ("Cell", "State", "mIoU (%)", "Epoch", "Time", "Where")
    return section("Cells", [fold(f"All {len(lines)} cells", table("Cells", head, lines, text=2))])


def _states(material: ReportData) -> Iterator[str]:
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


def tables(material: ReportData) -> str:
    """Every table, each number linked to its runs, with its comparisons below."""
    body = ['<p class="soft">Every number of ours is a link to its runs.</p>']
    for filled in material.tables:
        body.append(html(filled, _link))
        found = comparisons(filled)
        if found:
            body.append(_comparisons(filled, found))
    return section("Tables", body)


def curves(material: ReportData) -> str:
    """Learning curves and mask ratios of every setting."""
    body = [
        '<p class="soft">Lines are means over seeds; bands reach from the lowest to the highest '
        "seed. The axis begins where the curves are after a fifth of the epochs. The mask ratio "
        "is the part of unlabelled pixels whose pseudo-label counts.</p>"
    ]
    for panel in panels(material):
        charts = "".join(
            f"<div><h4>{title}</h4>{svg}</div>"
            for title, svg in (("mIoU", panel.scores), ("Mask ratio", panel.ratios))
            if svg
        )
        body.append(
            f'<div class="panel"><h3>{escape(panel.title)}</h3>{panel.legend}'
            f'<div class="charts">{charts}</div></div>'
        )
    return section("Curves", body if len(body) > 1 else ["<p>No run has logged an epoch yet.</p>"])


def classes(material: ReportData) -> str:
    """Which classes gain and which lose."""
    body = [
        f'<div class="panel"><h3>{escape(filled.table.title)}: {escape(picture.title)}</h3>'
        f'<p class="soft">Mean over {picture.pairs} pairs of runs of one split and seed; whiskers '
        f"reach from the lowest to the highest pair.</p>{picture.svg}</div>"
        for filled in material.tables
        for picture in class_pictures(filled)
    ]
    return section("Classes", body or ["<p>No two runs can be compared class by class yet.</p>"])


def confusion(material: ReportData) -> str:
    """Which classes are taken for which, method by method."""
    body: list[str] = []
    for filled in material.tables:
        for number, found in enumerate(confusions(filled)):
            runs = f"pixels of {found.runs} runs" if found.runs > 1 else "one run"
            title = f"{filled.table.title}: {found.title} ({runs})"
            body.append(fold(title, found.html, is_open=not body and not number))
    if not body:
        return section("Confusion", ["<p>No run has kept its confusion matrix yet.</p>"])
    note = (
        '<p class="soft">Of the pixels of a true class (row), the percentage that each class '
        "(column) got, over the whole validation set; below half a percent nothing is printed. "
        "The pixel counts are in the results: "
        + code(f'query {material.plan.grid.word} "SELECT * FROM confusion"')
        + ".</p>"
    )
    return section("Confusion", [note, *body])


def pictures(material: ReportData) -> str:
    """The qualitative figures."""
    body: list[str] = []
    for name, found in figures(material.tables, material.plan.root):
        if isinstance(found, str):
            body.append(f"<p>{escape(name)}: {escape(found)}.</p>")
        else:
            body.append(_figure(found))
    return section("Pictures", body or ["<p>No table of this grid compares two methods.</p>"])


def provenance(material: ReportData) -> str:
    """Numbers to runs, and the runs with their code and machines."""
    body = [
        fold(
            f"{filled.table.name}: every number and its runs",
            f'<ul class="notes">{"".join(_origin(filled, n) for n in _ours(filled))}</ul>',
        )
        for filled in material.tables
    ]
    head = ("Run", "Attempt", "Best", "Last", "Commit", "Versions", "Machine", "Finished (UTC)")
    lines = [_run(row) for row in material.rows]
    body.append(fold(f"All {len(lines)} runs", table("Runs that count", head, lines, text=1)))
    example = "tables GRID --explain NUMBER"
    body.append(f"<p>Configurations too: {code(f'python -m orchestrator {example}')}</p>")
    return section("Provenance", body)


def _link(named: Named) -> str | None:
    return f"#{anchor('from', named.name)}" if named.entry.results else None


def _ours(filled: FilledTable) -> Iterator[Named]:
    return (named for named in named_entries(filled) if named.entry.results)


def _origin(filled: FilledTable, named: Named) -> str:
    keys = dict.fromkeys(row.key for row in named.entry.results)
    links = ", ".join(f'<a href="#{anchor("run", key)}">{code(key)}</a>' for key in keys)
    text = f"{code(named.name)}: {escape(formula(filled, named))}; from {links}"
    return f'<li id="{anchor("from", named.name)}">{text}</li>'


def _run(row: Row) -> tuple[str, ...]:
    dirty = " (with changes)" if row.git_dirty else ""
    versions = f"torch {row.torch or '?'}, CUDA {row.cuda or 'none'}"
    if row.status != "done":
        versions = f"failed: {row.error_class}"
    scores = (row.best_miou_percent, row.last_miou_percent)
    return (
        f'<span id="{anchor("run", row.key)}">{code(row.key)}</span>',
        str(row.attempt),
        *("&ndash;" if score is None else f"{score:.2f}" for score in scores),
        f"{code((row.git_commit or 'unknown')[:10])}{dirty}",
        escape(versions),
        escape(f"{row.device or '?'} x {row.world_size or '?'}, {row.host or '?'}"),
        f"{row.finished:%Y-%m-%d %H:%M}",
    )


def _comparisons(filled: FilledTable, found: Iterable[Comparison]) -> str:
    digits = filled.table.decimals
    lines = []
    for c in found:
        ends = [signed(value, digits) for value in c.interval or ()]
        lines.append(
            (
                f"{escape(c.new)} against {escape(c.rival)}" + (f" ({c.block})" if c.block else ""),
                str(c.n),
                words(signed(c.mean, digits)),
                words(f"[{', '.join(ends)}]") if ends else "&ndash;",
                p_text(c.p),
                p_text(c.p_holm),
            )
        )
    head = ("Comparison", "n", "Mean", "95 % interval", "p", "p (Holm)")
    caption = f"Comparisons of {filled.table.name}, paired by split and seed"
    return f'<figure id="compared-{slug(filled.table.name)}">' + (
        table(caption, head, lines, text=1) + "</figure>"
    )


def _figure(found: Figure) -> str:
    pair = found.pair
    rows = "".join(f'<div class="shots">{"".join(map(_shot, row))}</div>' for row in found.rows)
    colours = "".join(
        f'<li><span class="swatch" style="background:rgb{colour}"></span>{escape(name)}</li>'
        for name, colour in found.colours
    )
    title = f"{pair.table}, {pair.column}, seed {pair.new.seed}"
    body = rows or "<p>On these images the two are right about equally many pixels.</p>"
    return (
        f"<h3>{escape(title)}: {escape(pair.base_label)} and {escape(pair.new_label)}</h3>"
        f'<p class="soft">{escape(found.rule)}</p>{body}<ul class="legend">{colours}</ul>'
    )


def _shot(shot: Shot) -> str:
    width, height = shot.size
    drawn = "".join(_box(box) for box in shot.boxes)
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(shot.text)}">'
        f'<image href="{shot.data}" width="{width}" height="{height}"/>{drawn}</svg>'
        f"<figcaption>{escape(shot.label)}</figcaption></figure>"
    )


def _box(box: Box) -> str:
    place = f'x="{box.left}" y="{box.top}" width="{box.width}" height="{box.height}"'
    return f'<rect class="edge" {place}/><rect class="box" {place}/>'
