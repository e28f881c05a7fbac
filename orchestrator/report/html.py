"""Pieces of HTML that several sections need."""

import re
from collections.abc import Iterable, Sequence
from html import escape

from orchestrator.tables.text import slug

_MINUS = re.compile(r"(?<![\w.&-])-(?=\d)")
_PERCENT = re.compile(r"(\d) %")


def section(title: str, body: Iterable[str]) -> str:
    """A part of the page with a heading, reachable from the navigation."""
    name = slug(title)
    text = "\n".join(body)
    return (
        f'<section id="{name}" aria-labelledby="{name}-head">\n'
        f'<h2 id="{name}-head">{escape(title)}</h2>\n{text}\n</section>'
    )


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, text: int) -> str:
    """A table of facts; its first column names the row.

    Args:
        caption: said before the table, and its name for a screen reader.
        head: names of the columns.
        rows: cells as HTML, one per column.
        text: how many leading columns are words rather than numbers.
    """
    kinds = ['class="text"' if index < text else "" for index in range(len(head))]
    heads = "".join(
        f'<th scope="col" {k}>{escape(h)}</th>' for h, k in zip(head, kinds, strict=True)
    )
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td {k}>{c}</td>" for c, k in zip(rest, kinds[1:], strict=True))
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    name = f"facts-{slug(caption)}"
    return (
        f'<p class="caption" id="{name}">{escape(caption)}</p>'
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{name}">'
        f'<table aria-labelledby="{name}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def fold(summary: str, body: str, *, is_open: bool = False) -> str:
    """A part that a reader opens."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{escape(summary)}</summary>\n{body}\n</details>"


def words(text: str) -> str:
    """Escaped text whose minus signs are such, and whose numbers keep their unit."""
    return _PERCENT.sub(r"\1&nbsp;%", _MINUS.sub("&minus;", escape(text)))


def code(text: str) -> str:
    """Something to copy or to compare."""
    return f"<code>{escape(text)}</code>"


def anchor(kind: str, name: str) -> str:
    """An id made of a name that may hold any letter."""
    return f"{kind}-{slug(name)}"
