"""Tables in Markdown, as GitHub shows it."""

import re

from orchestrator.tables.filled import FilledTable
from orchestrator.tables.text import MISSING, Shown, caption, has_block_labels, label, legend, shown

_SPECIAL = re.compile(r"([\\`*_|<>\[\]#~])")


def markdown(filled: FilledTable) -> str:
    """The whole table with caption and notes."""
    heads = [" ".join(parts) for parts in zip(*filled.table.heads(), strict=True)]
    blocks = has_block_labels(filled)
    head = [_plain(filled.table.corner), *([""] if blocks else []), *map(_plain, heads)]
    lines = [f"**{_plain(caption(filled))}** {_plain(legend(filled, 'in brackets'))}", ""]
    lines += [_line(head), _line([":--"] * (2 if blocks else 1) + ["--:"] * len(heads))]
    for block in filled.blocks:
        for row in block.rows:
            name, mark = label(row)
            name = _plain(name) + (f" <sup>{mark}</sup>" if mark else "")
            entries = [_entry(words) for words in shown(row, filled.table.decimals)]
            lines.append(_line([name, *([_plain(block.label)] if blocks else []), *entries]))
    for note in filled.notes:
        mark = f"<sup>{note.mark}</sup> " if note.mark not in ("", MISSING) else note.mark
        lines += ["", f"{mark.rstrip()} {_plain(note.text)}".strip()]
    return "\n".join(lines) + "\n"


def _entry(words: Shown) -> str:
    styles = {"plain": "{}", "best": "**{}**", "second": "<u>{}</u>", "gain": "*{}*"}
    text = styles[words.style].format(words.main)
    if words.spread:
        text += f" ±{words.spread}"
    if words.marks:
        text += f" <sup>{words.marks}</sup>"
    beside = ", ".join(filter(None, (words.paper, words.difference)))
    return f"{text} ({beside})" if beside else text


def _line(entries: list[str]) -> str:
    return f"| {' | '.join(entries)} |"


def _plain(text: str) -> str:
    """Text that Markdown must not read as its own."""
    return _SPECIAL.sub(r"\\\1", text)
