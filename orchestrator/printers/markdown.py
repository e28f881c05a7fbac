"""Tables in Markdown, as GitHub shows it."""

from orchestrator.tables.filled import FilledTable
from orchestrator.tables.text import (
    MISSING,
    Shown,
    caption,
    has_block_labels,
    label,
    legend,
    markdown_text,
    shown,
)


def markdown(filled: FilledTable) -> str:
    """The whole table with caption and notes."""
    heads = [" ".join(parts) for parts in zip(*filled.table.heads(), strict=True)]
    blocks = has_block_labels(filled)
    head = [
        markdown_text(filled.table.corner),
        *([""] if blocks else []),
        *map(markdown_text, heads),
    ]
    lines = [
        f"**{markdown_text(caption(filled))}** {markdown_text(legend(filled, 'in brackets'))}",
        "",
    ]
    lines += [_line(head), _line([":--"] * (2 if blocks else 1) + ["--:"] * len(heads))]
    for block in filled.blocks:
        for row in block.rows:
            name, mark = label(row)
            name = markdown_text(name) + (f" <sup>{mark}</sup>" if mark else "")
            entries = [_entry(words) for words in shown(row, filled.table.decimals)]
            lines.append(_line([name, *([markdown_text(block.label)] if blocks else []), *entries]))
    for note in filled.notes:
        mark = f"<sup>{note.mark}</sup> " if note.mark not in ("", MISSING) else note.mark
        lines += ["", f"{mark.rstrip()} {markdown_text(note.text)}".strip()]
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
