"""What a verb prints: the answer to standard output, everything else to standard error."""

import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from datasets.wording import quantity
from orchestrator.storage.root import Root

_PLAIN_WIDTH = 200  # columns where the output is no terminal


def console_of_output(*, json: bool = False) -> Console:
    """The terminal, or wide plain lines where the output is no terminal.

    Args:
        json: what the console shows is no part of the answer, so it goes to standard error.
    """
    # A launch redirects sys.stdout, to catch what Ray prints; without `file` rich would follow.
    file = sys.stderr if json else sys.stdout
    width = None if as_typed(file).is_terminal else _PLAIN_WIDTH
    return as_typed(file, width)


def print_text(text: str, style: str = "") -> None:
    """Print a line of the answer."""
    as_typed(sys.stdout).print(Text(text, style=style), soft_wrap=True)


def print_json(value: object) -> None:
    """Print the answer for a program, see docs/json.md: a value, or text that is JSON already."""
    text = value if isinstance(value, str) else dumps(value, indent=1, default=str)
    console_of_output().out(text, highlight=False)


def print_note(text: str, style: str = "") -> None:
    """Print a message that is no part of the answer."""
    as_typed(sys.stderr).print(Text(text, style=style), soft_wrap=True)


def show_files(root: Root, paths: Sequence[Path], *, json: bool) -> None:
    """Upload printed files under a bucket, and print where they are."""
    urls = root.upload(paths)
    if json:
        print_json({"files": [str(path) for path in paths], "uploaded": urls})
        return
    for path in paths:
        console_of_output().print(str(path), highlight=False, soft_wrap=True)
    if urls:
        more = f"{quantity(len(urls), 'file')}, also under {root.address}"
        console_of_output().print(more, highlight=False, soft_wrap=True)


def as_typed(file: TextIO, width: int | None = None) -> Console:
    """A console to which [12] and :car: in a title are no words of its own."""
    return Console(file=file, width=width, markup=False, emoji=False)
