"""The templates of the report, and what they call to print text, numbers and links."""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.printers.html import environment
from orchestrator.tables.text import slug

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_TEMPLATES = Path(__file__).with_name("templates")

_MINUS = re.compile(r"(?<![\w.&-])-(?=\d)")
_PERCENT = re.compile(r"(\d) %")


@cache
def report_environment() -> "Environment":
    """The templates, with their filters."""
    made = environment(_TEMPLATES)
    made.filters |= {"slug": slug, "anchor": anchor, "words": words, "number": number}
    return made


def words(text: str) -> "Markup":
    """Escaped text with true minus signs, and no line break between a number and its %."""
    from markupsafe import Markup, escape

    shown = _MINUS.sub("&minus;", str(escape(text)))
    return Markup(_PERCENT.sub(r"\1&nbsp;%", shown))


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "\u2013" if value is None else f"{value:.{digits}f}"


def anchor(name: str, kind: str) -> str:
    """An id made of a name that may hold any letter, such as "run" and a key."""
    return f"{kind}-{slug(name)}"
