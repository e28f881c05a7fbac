r"""One LaTeX macro per number, so that a manuscript quotes results by name and never by hand.

``\input{table3_numbers}`` and then ``\gridnumber{table3/321/ipixmatch/resnet50-p1-1of16}``; names
are those of `named_entries`, with /spread, /n, /paper or /difference for the values beside a
number. ``\gridtyped{name}{74.5}`` prints the typed text, which `tables --check` then compares.
"""

from collections.abc import Iterator

from orchestrator.statistics.compare import Comparison, comparisons
from orchestrator.statistics.text import p_text
from orchestrator.tables.filled import FilledTable
from orchestrator.tables.text import NamedEntry, named_entries, signed, slug

MACROS = r"""\providecommand{\gridset}[2]{\expandafter\gdef\csname grid:#1\endcsname{#2}}
\providecommand{\gridnumber}[1]{\ifcsname grid:#1\endcsname\csname grid:#1\endcsname%
  \else\textbf{??}\GenericWarning{}{No result is called #1}\fi}
\providecommand{\gridtyped}[2]{#2}"""


def numbers(filled: FilledTable) -> str:
    """The macros of a table, each with the runs behind it as a comment."""
    lines = [
        f"% Numbers of {filled.table.name}, written by `python -m orchestrator tables`;",
        "% what is changed here by hand is found by `tables --check`.",
        MACROS,
    ]
    for named in named_entries(filled):
        origin = _origin(named)
        for name, text in texts(filled, named).items():
            lines.append(f"\\gridset{{{name}}}{{{_minus(text)}}}{origin}")
            origin = ""  # once per entry
    for name, text in compared(filled).items():
        lines.append(f"\\gridset{{{name}}}{{{_minus(text)}}}")
    return "\n".join(lines) + "\n"


def all_texts(filled: FilledTable) -> dict[str, str]:
    """Every name of a table with its text, as LaTeX has it."""
    macros: dict[str, str] = {}
    for named in named_entries(filled):
        macros |= texts(filled, named)
    return {name: _minus(text) for name, text in (macros | compared(filled)).items()}


def texts(filled: FilledTable, named: NamedEntry) -> dict[str, str]:
    """What one entry prints, by name; a result that is missing has no name."""
    entry, kind, digits = named.entry, named.row.row.kind, filled.table.decimals
    values: dict[str, str] = {}
    if kind in ("quoted", "original"):
        if entry.published is not None:
            values[named.name] = f"{entry.published:.{digits}f}"
        return values
    plain = kind == "ours"
    if entry.mean is not None:
        mean = f"{entry.mean:.{digits}f}" if plain else signed(entry.mean, digits)
        values[named.name] = mean
        values[f"{named.name}/n"] = str(len(entry.values))
    if entry.spread is not None:
        values[f"{named.name}/spread"] = f"{entry.spread:.{digits}f}"
    if entry.published is not None:
        paper = f"{entry.published:.{digits}f}" if plain else signed(entry.published, digits)
        values[f"{named.name}/paper"] = paper
    if plain and entry.difference is not None:
        values[f"{named.name}/difference"] = signed(entry.difference, digits)
    return values


def compared(filled: FilledTable) -> dict[str, str]:
    """Means, intervals and p-values of the table's comparisons, by name."""
    macros: dict[str, str] = {}
    for comparison in comparisons(filled):
        macros |= _comparison(filled, comparison)
    return macros


def _comparison(filled: FilledTable, comparison: Comparison) -> dict[str, str]:
    digits = filled.table.decimals
    methods = f"{comparison.new} against {comparison.rival}"
    parts = [filled.table.name, comparison.block, methods]
    name = "/".join(slug(part) for part in parts if part)
    values = {
        name: signed(comparison.mean, digits),
        f"{name}/n": str(comparison.n),
        f"{name}/p": p_text(comparison.p_holm).replace("<", "$<$"),
    }
    if comparison.interval is not None:
        low, high = (signed(value, digits) for value in comparison.interval)
        values |= {f"{name}/low": low, f"{name}/high": high}
    return values


def _origin(named: NamedEntry) -> str:
    """A comment with the runs behind a number."""
    results = named.entry.results
    if not results:
        return ""
    keys = dict.fromkeys(f"{row.key}.a{row.attempt:04d}" for row in results)
    commits = dict.fromkeys((row.git_commit or "unknown")[:10] for row in results)
    return f"% {', '.join(_first(list(keys)))}; commit {', '.join(commits)}"


def _first(keys: list[str], shown: int = 20) -> Iterator[str]:
    yield from keys[:shown]
    if len(keys) > shown:
        yield f"and {len(keys) - shown} more"


def _minus(text: str) -> str:
    return f"$-${text[1:]}" if text.startswith("-") else text
