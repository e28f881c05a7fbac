r"""The numbers of a LaTeX manuscript, checked against today's results.

It reads the LaTeX file and what that inputs: every ``\gridnumber{name}`` and
``\gridtyped{name}{text}``, the numbers files (``\gridset``) and the tables it takes in whole.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets.wording import did_you_mean, did_you_mean_path
from orchestrator.printers.latex import latex
from orchestrator.printers.numbers import all_texts
from orchestrator.tables.filled import FilledTable, Mark
from orchestrator.tables.text import named_entries

Problem = Literal["stale", "mixed", "missing"]

_USED = re.compile(r"\\gridnumber\s*\{([^}]*)\}|\\gridtyped\s*\{([^}]*)\}\s*\{([^}]*)\}")
_SET = re.compile(r"\\gridset\{([^}#]*)\}\{([^}]*)\}")
_INPUT = re.compile(r"\\(?:input|include)\s*\{([^}]*)\}")
_COMMENT = re.compile(r"(?<!\\)%.*")
_BESIDE = ("spread", "n", "paper", "difference", "p", "low", "high")
_MARKED: dict[Mark, tuple[Problem, str]] = {
    Mark.DRIFTED: ("stale", "its runs have another configuration, or other data, than today's"),
    Mark.MIXED: ("mixed", "some seeds have other configurations or other data, and are left out"),
    Mark.MACHINES: ("mixed", "its runs come from different code or machines"),
    Mark.FEWER_SEEDS: ("missing", "some of its seeds have no result"),
}


@dataclass(frozen=True)
class Finding:
    """What is wrong with one number."""

    where: str
    problem: Problem
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}: {self.text}"


@dataclass(frozen=True)
class ManuscriptCheck:
    """The answer: how many numbers were looked at, and what is wrong."""

    numbers: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Line:
    where: str
    text: str


def check_manuscript(path: Path, tables: Sequence[FilledTable]) -> ManuscriptCheck:
    """Compare every number that a manuscript takes from the results with today's.

    Args:
        path: the LaTeX file.
        tables: filled from today's results.

    Returns:
        Findings in the order of the text: stale, mixed (different configurations, code or
        machines) and missing numbers.

    Raises:
        ValueError: the file cannot be read, or takes no number from the results.
    """
    lines, absent = _read(path, frozenset())
    used = [(line.where, *_name(match)) for line in lines for match in _USED.finditer(line.text)]
    whole = [line for line in lines if _INPUT.search(line.text)]
    by_name = {table.table.name: table for table in tables}
    findings = list(absent)
    tabled = [f for line in whole for f in _whole_table(line, path.parent, by_name)]
    findings += [finding for finding in tabled if finding is not None]
    if not used and not tabled:
        raise ValueError(
            f"{path} takes no number from the results: input a <table>_numbers.tex and write "
            "\\gridnumber{name}, or \\gridtyped{name}{number}."
        )
    carried = dict(pair for line in lines for pair in _SET.findall(line.text))
    checker = _Checker(tables, carried)
    findings += [finding for use in used for finding in checker.check(*use)]
    return ManuscriptCheck(len(used) + len(tabled), tuple(findings))


class _Checker:
    """Compares names and texts with today's numbers."""

    def __init__(self, tables: Sequence[FilledTable], carried: dict[str, str]) -> None:
        self._carried = carried
        self._today = {name: text for table in tables for name, text in all_texts(table).items()}
        self._entries = {n.name: n.entry for table in tables for n in named_entries(table)}

    def check(self, where: str, name: str, typed: str | None) -> Iterator[Finding]:
        """What is wrong with one use of a number."""
        base, _, last = name.rpartition("/")
        entry = self._entries.get(base if last in _BESIDE else name)
        if name not in self._today:
            yield Finding(where, "missing", self._unknown(name, is_entry=entry is not None))
            return
        shown = self._carried.get(name) if typed is None else typed
        today = self._today[name]
        if shown is None:
            yield Finding(where, "missing", f"{name} is in no numbers file that is input.")
        elif _plain(shown) != _plain(today):
            yield Finding(where, "stale", f"{name} reads {shown}; today it is {today}.")
        for mark in entry.marks if entry else ():
            if mark in _MARKED and last != "paper":
                problem, text = _MARKED[mark]
                yield Finding(where, problem, f"{name}: {text}.")

    def _unknown(self, name: str, *, is_entry: bool) -> str:
        if is_entry:
            return f"{name} has no result yet."
        return f"no number is called {name}.{did_you_mean(name, self._today, most=2)}"


def _name(match: re.Match[str]) -> tuple[str, str | None]:
    """Name, and the text where it was typed."""
    return (match[1], None) if match[1] is not None else (match[2], match[3])


def _read(path: Path, above: frozenset[Path]) -> tuple[list[_Line], list[Finding]]:
    """All lines without comments, with those of input files after their input."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} cannot be read: {reason}.{did_you_mean_path(path)}") from error
    lines: list[_Line] = []
    absent: list[Finding] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _Line(f"{path.name}:{number}", _COMMENT.sub("", raw))
        lines.append(line)
        for name in _INPUT.findall(line.text):
            file = _file(path.parent, name)
            if file in above:
                continue
            if not file.is_file():
                absent.append(Finding(line.where, "missing", f"there is no file {file}."))
                continue
            inner, more = _read(file, above | {path})
            lines += inner
            absent += more
    return lines, absent


def _whole_table(
    line: _Line, folder: Path, tables: dict[str, FilledTable]
) -> Iterator[Finding | None]:
    """For each table that a line takes in: what is wrong with it, or None."""
    for name in _INPUT.findall(line.text):
        file = _file(folder, name)
        filled = tables.get(file.stem)
        if filled is None or not file.is_file():
            continue
        is_today = file.read_text(encoding="utf-8") == latex(filled)
        text = f"the table {file.name} is not today's; write it again with `tables`."
        yield None if is_today else Finding(line.where, "stale", text)


def _file(folder: Path, name: str) -> Path:
    file = folder / name.strip()
    return file if file.suffix == ".tex" else file.with_name(file.name + ".tex")


def _plain(text: str) -> str:
    """A number as it reads, however its minus is set."""
    return text.replace("$", "").replace("\u2212", "-").replace(" ", "")
