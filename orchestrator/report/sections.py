"""The later parts of a report: tables, pictures, and where every number comes from."""

from collections.abc import Iterable, Iterator
from html import escape

from orchestrator.explain import formula
from orchestrator.report.choice import Box
from orchestrator.report.classes import class_pictures
from orchestrator.report.confusion import confusions
from orchestrator.report.curves import panels
from orchestrator.report.markup import anchor, code, fold, section, table, words
from orchestrator.report.material import Material
from orchestrator.report.pictures import Figure, Shot, figures
from orchestrator.results import Row
from orchestrator.statistics.compare import Comparison, comparisons
from orchestrator.statistics.wording import p_text
from orchestrator.tables.entry_ids import Named, named_entries, slug
from orchestrator.tables.filled import FilledTable
from orchestrator.tables.html import html
from orchestrator.tables.wording import signed


def tables(material: Material) -> str:
    """Every table, each number linked to its runs, with its comparisons below."""
    body = ['<p class="soft">Every number of ours is a link to its runs.</p>']
    for filled in material.tables:
        body.append(html(filled, _link))
        found = comparisons(filled)
        if found:
            body.append(_comparisons(filled, found))
    return section("Tables", body)


def curves(material: Material) -> str:
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


def classes(material: Material) -> str:
    """Which classes gain and which lose."""
    body = [
        f'<div class="panel"><h3>{escape(filled.table.title)}: {escape(picture.title)}</h3>'
        f'<p class="soft">Mean over {picture.pairs} pairs of runs of one split and seed; whiskers '
        f"reach from the lowest to the highest pair.</p>{picture.svg}</div>"
        for filled in material.tables
        for picture in class_pictures(filled)
    ]
    return section("Classes", body or ["<p>No two runs can be compared class by class yet.</p>"])


def confusion(material: Material) -> str:
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


def pictures(material: Material) -> str:
    """The qualitative figures."""
    body: list[str] = []
    for name, found in figures(material.tables, material.plan.root):
        if isinstance(found, str):
            body.append(f"<p>{escape(name)}: {escape(found)}.</p>")
        else:
            body.append(_figure(found))
    return section("Pictures", body or ["<p>No table of this grid compares two methods.</p>"])


def provenance(material: Material) -> str:
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
