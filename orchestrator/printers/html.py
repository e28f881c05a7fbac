"""Tables in HTML: headers with scope, notes that are linked, no script."""

from collections.abc import Callable
from html import escape
from itertools import groupby

from orchestrator.tables.filled import FilledRow, FilledTable
from orchestrator.tables.text import (
    MISSING,
    Named,
    Shown,
    caption,
    has_block_labels,
    label,
    legend,
    named_entries,
    shown,
    slug,
)

_STYLES = {
    "plain": "{}",
    "best": "<strong>{}</strong>",
    "second": "<u>{}</u>",
    "gain": "<em>{}</em>",
}
_SAID = {"best": "best", "second": "second best"}  # for those who do not see bold and lines

LinkOf = Callable[[Named], str | None]


def html(filled: FilledTable, link_of: LinkOf = lambda _: None) -> str:
    """The table with caption and notes, a fragment to put into a page.

    Args:
        filled: the table.
        link_of: address of what stands behind a number; None for no link.
    """
    name = slug(filled.table.name)
    parts = [
        f'<figure class="table" id="table-{name}">',
        f'<figcaption id="caption-{name}"><b>{escape(caption(filled))}</b> '
        f"<span>{escape(legend(filled, 'second line'))}</span></figcaption>",
        # Outside the table: a narrow table would squeeze it, a wide one would carry it away.
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="caption-{name}">',
        f'<table aria-labelledby="caption-{name}">',
        "<thead>",
        *_head(filled),
        "</thead>",
        *_body(filled, link_of),
        "</table></div>",
        *_notes(filled),
        "</figure>",
    ]
    return "\n".join(parts) + "\n"


def document(title: str, body: str) -> str:
    """A small page of its own around a fragment."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><main>\n{body}</main></body></html>\n"
    )


def _head(filled: FilledTable) -> list[str]:
    """One line per axis; outer axes span the columns they share."""
    heads = filled.table.heads()
    labels = 2 if has_block_labels(filled) else 1
    lines = []
    for depth, head in enumerate(heads):
        cells = []
        if depth == 0:
            down = f' rowspan="{len(heads)}"' if len(heads) > 1 else ""
            corner = escape(filled.table.corner) or "Method"
            block = f'<th scope="col" class="text block"{down}>Block</th>' if labels == 2 else ""
            cells.append(f'{block}<th scope="col" class="text"{down}>{corner}</th>')
        for _, same in groupby(range(len(head)), key=lambda i: _path(heads, i, depth)):
            span = list(same)
            scope = "col" if depth == len(heads) - 1 else "colgroup"
            wide = f' colspan="{len(span)}"' if len(span) > 1 else ""
            cells.append(f'<th scope="{scope}"{wide}>{escape(head[span[0]])}</th>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return lines


def _path(heads: tuple[tuple[str, ...], ...], column: int, depth: int) -> tuple[str, ...]:
    """Labels of a column from the outermost axis down; the innermost never joins its neighbour."""
    own = (str(column),) if depth == len(heads) - 1 else ()
    return tuple(head[column] for head in heads[: depth + 1]) + own


def _body(filled: FilledTable, link_of: LinkOf) -> list[str]:
    """One body per block, its name beside all its rows."""
    names = named_entries(filled)
    lines = []
    for block in filled.blocks:
        lines.append("<tbody>")
        if has_block_labels(filled):  # a narrow screen has a line for it, and no column
            lines.append(
                f'<tr class="block"><th scope="rowgroup" colspan="{len(filled.table.columns) + 1}">'
                f"{escape(block.label)}</th></tr>"
            )
        for number, row in enumerate(block.rows):
            own = [next(names) for _ in row.entries]
            first = ""
            if number == 0 and has_block_labels(filled):
                first = (
                    f'<th scope="rowgroup" class="block" rowspan="{len(block.rows)}">'
                    f"<span>{escape(block.label)}</span></th>"
                )
            lines.append(_row(filled, row, [link_of(named) for named in own], first))
        lines.append("</tbody>")
    return lines


def _row(filled: FilledTable, row: FilledRow, links: list[str | None], first: str) -> str:
    name, marks = label(row)
    head = f'<th scope="row">{escape(name)}{_marks(filled, marks)}</th>'
    entries = [
        _entry(filled, words, link)
        for words, link in zip(shown(row, filled.table.decimals), links, strict=True)
    ]
    return f'<tr class="{row.row.kind}">{first}{head}{"".join(entries)}</tr>'


def _entry(filled: FilledTable, words: Shown, link: str | None) -> str:
    main = _minus(words.main)
    if words.main == MISSING:
        main = '<span class="missing" title="no result yet">&ndash;&ndash;</span>'
    text = _STYLES[words.style].format(main)
    if words.style in _SAID:
        text += f'<span class="said"> {_SAID[words.style]}</span>'
    if link is not None:
        text = f'<a href="{escape(link)}">{text}</a>'
    if words.spread:
        text += f'<span class="spread"> &plusmn;&nbsp;{words.spread}</span>'
    text += _marks(filled, words.marks)
    if words.paper:
        gap = f" ({_minus(words.difference)})" if words.difference else ""
        text += f'<small><span class="said">paper </span>{_minus(words.paper)}{gap}</small>'
    return f"<td>{text}</td>"


def _marks(filled: FilledTable, marks: str) -> str:
    if not marks:
        return ""
    links = [f'<a href="#{_note_id(filled, mark)}">{escape(mark)}</a>' for mark in marks.split(",")]
    return f"<sup>{','.join(links)}</sup>"


def _notes(filled: FilledTable) -> list[str]:
    """Notes below the table, each with a place to link to."""
    lines = ['<ul class="notes">']
    for note in filled.notes:
        place = f' id="{_note_id(filled, note.mark)}"' if note.mark not in ("", MISSING) else ""
        mark = f"<sup>{escape(note.mark)}</sup> " if note.mark else ""
        mark = "&ndash;&ndash; " if note.mark == MISSING else mark
        lines.append(f"<li{place}>{mark}{escape(note.text)}</li>")
    return [*lines, "</ul>"]


def _note_id(filled: FilledTable, mark: str) -> str:
    return f"note-{slug(filled.table.name)}-{slug(mark.partition('=')[0])}"


def _minus(number: str) -> str:
    return f"&minus;{number[1:]}" if number[:1] == "-" and number[1:2].isdigit() else number


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:1rem auto;max-width:70rem;padding:0 1rem;"
    "color:#1b1f24;background:#fff}.scroll{overflow-x:auto;position:relative}table{border-collapse:collapse}"
    "th,td{padding:.3rem .6rem;text-align:right;font-variant-numeric:tabular-nums}"
    "th[scope=row],th[scope=rowgroup],th.text{text-align:left}"
    "tbody{border-top:1px solid #666}td small{display:block;color:#57606a}"
    "tr.block{display:none}.said{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}"
)
