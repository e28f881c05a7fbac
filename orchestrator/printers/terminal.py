"""Tables on the terminal, through rich."""

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from orchestrator.tables.filled import FilledTable
from orchestrator.tables.text import Shown, caption, has_block_labels, label, legend, shown

_STYLES = {"plain": "", "best": "bold", "second": "underline", "gain": "italic"}


def terminal(filled: FilledTable) -> Group:
    """The whole table with caption and notes, for `rich.console.Console.print`."""
    blocks = has_block_labels(filled)
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text(filled.table.corner))
    if blocks:
        table.add_column("")
    for head in zip(*filled.table.heads(), strict=True):
        table.add_column(Text("\n".join(head)), justify="right", no_wrap=True)
    for block in filled.blocks:
        for row in block.rows:
            name, mark = label(row)
            entries = [_entry(words) for words in shown(row, filled.table.decimals)]
            names = [f"{name} ({mark})" if mark else name, *([block.label] if blocks else [])]
            table.add_row(*map(Text, names), *entries)
        table.add_section()
    notes = [Text(f"{note.mark} {note.text}".strip(), style="dim") for note in filled.notes]
    how = Text(legend(filled, "second line"), style="dim")
    return Group(Text(caption(filled), style="bold"), table, how, *notes)


def _entry(words: Shown) -> Text:
    text = Text(words.main, style=_STYLES[words.style])
    if words.spread:
        text.append(f" ±{words.spread}", style="not bold not underline")
    if words.marks:
        text.append(f" {words.marks}", style="dim not bold not underline")
    beside = " ".join(filter(None, (words.paper, words.difference)))
    if beside:
        text.append(f"\n{beside}", style="dim not bold not underline not italic")
    return text
