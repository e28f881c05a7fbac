"""What a verb prints: the answer to standard output, everything else to standard error."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from orchestrator.storage.root import Root

_PLAIN_WIDTH = 200  # columns where the output is no terminal


def console_of_output() -> Console:
    """The terminal, or wide plain lines where the output is no terminal."""
    # A launch redirects sys.stdout, to catch what Ray prints; without `file` rich would follow.
    console = as_typed(sys.stdout)
    width = None if console.is_terminal else _PLAIN_WIDTH
    return as_typed(sys.stdout, width)


def print_text(text: str, style: str = "") -> None:
    """Print a line of the answer."""
    as_typed(sys.stdout).print(Text(text, style=style), soft_wrap=True)


def print_note(text: str) -> None:
    """Print a message that is no part of the answer."""
    as_typed(sys.stderr).print(text, soft_wrap=True, highlight=False)


def show_files(root: Root, paths: Sequence[Path]) -> None:
    """Upload printed files under a bucket, and print where they are."""
    urls = root.upload(paths)
    for path in paths:
        console_of_output().print(str(path), highlight=False, soft_wrap=True)
    if urls:
        more = f"{len(urls)} files, also under {root.address}"
        console_of_output().print(more, highlight=False, soft_wrap=True)


def as_typed(file: TextIO, width: int | None = None) -> Console:
    """A console to which [12] and :car: in a title are no words of its own."""
    return Console(file=file, width=width, markup=False, emoji=False)
