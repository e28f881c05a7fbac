r"""Tables in LaTeX, as the paper sets them; needs booktabs and multirow, and xcolor for grey.

Each row of ours takes two lines: ours, and below it, small and grey, the paper's value with the
difference.
"""

import re
import unicodedata
from itertools import groupby

from orchestrator.tables.filled import FilledBlock, FilledRow, FilledTable
from orchestrator.tables.text import MISSING, Shown, caption, has_block_labels, label, legend, shown

LATEX_PACKAGES = ("booktabs", "multirow", "xcolor")

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "\u00b1": r"$\pm$",
    "\u00b2": r"\textsuperscript{2}",
    "\u2191": r"$\uparrow$",
    "\u2193": r"$\downarrow$",
    "\u2212": "$-$",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
}
_PAIRS = re.compile(r"-(?=-)|'(?=')|,(?=,)")  # LaTeX would make one other sign of the two
_UNSAFE = re.compile(r"[^\w.:+/ -]", re.ASCII)  # in the name of a label

# pdflatex prints letters up to U+017F and these with the fonts of every document, but not all:
_ALSO = "\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u2122\u20ac"
_NEVER = "\u0126\u0127\u0138\u013f\u0140\u0149\u0166\u0167\u0172\u0173\u017f"
_ONLY_T1 = "\xab\xbb\xd0\xde\xf0\xfe\u0104\u0105\u0110\u0111\u0118\u0119\u012e\u012f\u014a\u014b"
_SMALL = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"),
    *("lambda", "mu", "nu", "xi", "omicron", "pi", "rho", "varsigma", "sigma", "tau", "upsilon"),
    *("phi", "chi", "psi", "omega"),
)
_LARGE = (
    *("gamma", "delta", "theta", "lambda", "xi", "pi", "sigma"),
    *("upsilon", "phi", "psi", "omega"),
)
_GREEK = {
    **{chr(0x3B1 + at): rf"$\{name}$" for at, name in enumerate(_SMALL) if name != "omicron"},
    **{chr(0x391 + _SMALL.index(name)): rf"$\{name.title()}$" for name in _LARGE},
}
_LETTER = r"\gridletter"  # an engine that reads Unicode takes its first argument, else the second
_DEFINE_LETTER = rf"\providecommand{{{_LETTER}}}[2]{{\ifdefined\Umathchar#1\else#2\fi}}"


def latex(filled: FilledTable) -> str:
    r"""The whole table as a float, for ``\input``."""
    blocks = has_block_labels(filled)
    columns = len(filled.table.columns)
    lines = [
        f"% needs \\usepackage{{{','.join(LATEX_PACKAGES)}}}",
        r"\begin{table*}[t]",
        r"\providecommand{\color}[2][]{}",  # black and small where xcolor is not loaded
        r"\centering",
        rf"\caption{{{escaped(caption(filled))}}}",
        rf"\label{{tab:{_UNSAFE.sub('-', filled.table.name)}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\begin{{tabular}}{{{'ll' if blocks else 'l'}{'c' * columns}}}",
        r"\toprule",
        *_head(filled),
    ]
    for block in filled.blocks:
        lines += [r"\midrule", *_block(filled, block)]
    lines += [r"\bottomrule", r"\end{tabular}", *_notes(filled), r"\end{table*}"]
    if any(_LETTER in line for line in lines):
        lines.insert(2, _DEFINE_LETTER)
    return "\n".join(lines) + "\n"


def latex_document(bodies: list[str]) -> str:
    """A LaTeX file of its own around tables, to look at them."""
    packages = ",".join(LATEX_PACKAGES)
    head = ["\\documentclass[10pt]{article}", "\\usepackage[margin=2cm]{geometry}"]
    head += [f"\\usepackage{{{packages}}}", "\\begin{document}"]
    return "\n".join([*head, *bodies, "\\end{document}", ""])


def escaped(text: str) -> str:
    """Text that LaTeX prints as it stands, with the fonts and packages of any document."""
    composed = unicodedata.normalize("NFC", text)
    apart = _PAIRS.sub(lambda match: f"{match[0]}\0", composed)
    return "".join(_escape(letter) for letter in apart).replace("\0", "{}")


def _escape(letter: str) -> str:
    """One letter; where pdflatex has none, its number in Unicode."""
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if letter in _ONLY_T1:
        return rf"{_LETTER}{{{letter}}}{{{{\fontencoding{{T1}}\selectfont {letter}}}}}"
    if letter in _ALSO or (letter < "\u0180" and letter not in _NEVER):
        return letter
    return f"{_LETTER}{{{letter}}}{{{_GREEK.get(letter) or f'U+{ord(letter):04X}'}}}"


def _head(filled: FilledTable) -> list[str]:
    """One line per axis; outer axes span the columns they share."""
    names = 2 if has_block_labels(filled) else 1
    heads = filled.table.heads()
    lines = []
    for depth, head in enumerate(heads):
        first = escaped(filled.table.corner) if depth == 0 else ""
        cells, rules, at = [first, *[""] * (names - 1)], [], names + 1
        for _, same in groupby(range(len(head)), key=lambda i: _path(heads, i, depth)):
            span = list(same)
            cells.append(_spanning(head[span[0]], len(span)))
            if len(span) > 1:
                rules.append(rf"\cmidrule(lr){{{at}-{at + len(span) - 1}}}")
            at += len(span)
        lines += [_line(cells), *([" ".join(rules)] if rules else [])]
    return lines


def _path(heads: tuple[tuple[str, ...], ...], column: int, depth: int) -> tuple[str, ...]:
    """Labels of a column from the outermost axis down; the innermost never joins its neighbour."""
    own = (str(column),) if depth == len(heads) - 1 else ()
    return tuple(head[column] for head in heads[: depth + 1]) + own


def _spanning(text: str, count: int) -> str:
    return escaped(text) if count == 1 else rf"\multicolumn{{{count}}}{{c}}{{{escaped(text)}}}"


def _block(filled: FilledTable, block: FilledBlock) -> list[str]:
    """Lines of a block, its name beside all of them."""
    rows = [_row(filled, row) for row in block.rows]
    count = sum(map(len, rows))
    name = rf"\multirow{{{count}}}{{*}}{{{escaped(block.label)}}}" if block.label else ""
    lines: list[str] = []
    for row in rows:
        for cells in row:
            named = [cells[0], "" if lines else name, *cells[1:]]
            is_followed = cells is not row[-1]
            text = _line(named if has_block_labels(filled) else cells)
            lines.append(f"{text}[-2pt]" if is_followed else text)  # the paper's line sits close
    return lines


def _row(filled: FilledTable, row: FilledRow) -> list[list[str]]:
    """Our line, and the paper's where there is one."""
    name, mark = label(row)
    entries = shown(row, filled.table.decimals)
    gain = row.row.kind in ("difference", "average")
    text = escaped(name) + _mark(mark)
    lines = [[rf"\textit{{{text}}}" if gain else text, *map(_entry, entries)]]
    if any(words.paper for words in entries):
        lines.append([_small("paper" if gain else "paper (difference)"), *map(_paper, entries)])
    return lines


def _entry(words: Shown) -> str:
    styles = {
        "plain": "%s",
        "best": r"\textbf{%s}",
        "second": r"\underline{%s}",
        "gain": r"\textit{%s}",
    }
    text = styles[words.style] % _minus(words.main)
    if words.spread:
        text += rf"{{\scriptsize$\,\pm\,${words.spread}}}"
    return text + _mark(words.marks)


def _paper(words: Shown) -> str:
    if not words.paper:
        return ""
    gap = f" ({_minus(words.difference)})" if words.difference else ""
    return _small(_minus(words.paper) + gap)


def _minus(number: str) -> str:
    """A number with a minus and not a hyphen; a dash stays a dash."""
    return f"$-${number[1:]}" if number[:1] == "-" and number[1:2].isdigit() else number


def _small(text: str) -> str:
    return rf"{{\scriptsize\color{{gray}}{text}}}"


def _mark(mark: str) -> str:
    return rf"\textsuperscript{{{mark}}}" if mark else ""


def _notes(filled: FilledTable) -> list[str]:
    """Legend and notes below the table, set small."""
    lines = [escaped(legend(filled, "grey"))]
    for note in filled.notes:
        mark = note.mark if note.mark == MISSING else _mark(note.mark)
        lines.append(_as_text(f"{mark} {escaped(note.text)}".strip()))
    return [
        r"\par\smallskip",
        r"\parbox{\linewidth}{\footnotesize\raggedright",
        " \\\\\n".join(lines),
        "}",
    ]


def _line(cells: list[str]) -> str:
    return _as_text(" & ".join(cells)) + r" \\"


def _as_text(line: str) -> str:
    r"""A line whose first letter the ``\\`` or the rule before it does not take as its option."""
    return "{}" + line if line[:1] in ("[", "*") else line
