"""Charts drawn with matplotlib: as SVG in the page, and as PDF, SVG and PNG for a paper.

The same chart gives the same bytes: no dates, and ids of SVG made from its content. Nothing here
needs a display. Import this module only where something is drawn: matplotlib takes half a second.
"""

import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from math import inf, isfinite
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.report.charts import Bar, BarChart, Chart, LineChart, Series

FigureFormat = Literal["pdf", "svg", "png"]

# Okabe and Ito's colours, which people with any colour vision tell apart, dark enough for lines on
# white. Dash and marker say the same once more, for prints without colour.
COLOURS = ("#0064a8", "#b8480a", "#00714f", "#9a3f80", "#7a5500", "#4d4d4d")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1.2, 1.6)),
    (0, (6, 2, 1.2, 2)),
    (0, (9, 3)),
    (0, (3, 1.5)),
)
_MARKERS = ("s", "D", "^", "v", "P", "o")
_GAIN, _LOSS = COLOURS[0], COLOURS[1]
_INK, _SOFT, _GRID = "#1c2127", "#545d68", "#d5dae0"

_WIDTH, _HEIGHT = 4.6, 3.0  # inches: one column of a paper with two
_BAR_HEIGHT = 0.2
_NUM_TICKS = 6
_MARGIN = 0.015  # of the axis, for the whole of the last marker
_CLIMB = 0.2  # of the epochs, which may leave the chart below
_MOST_MARKERS = 12  # of 80 epochs, not 80 markers
_LEGEND_LETTERS = 62  # that fit side by side

STYLE: Any = {  # matplotlib types its keys one by one
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "text.parse_math": False,  # a class or method may have a $ in its name
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "legend.columnspacing": 1.4,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
    "svg.hashsalt": "ipixmatch",
}
_METADATA: dict[FigureFormat, dict[str, None]] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {},
}


def figure_of(chart: Chart) -> Figure:
    """The drawn chart."""
    with mpl.rc_context(STYLE):
        if isinstance(chart, LineChart):
            return _line_figure(chart)
        return _bar_figure(chart)


def file_content(chart: Chart, suffix: FigureFormat) -> bytes:
    """A file of the chart for a paper, with fonts inside; its text alternative is in the SVG."""
    out = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure_of(chart).savefig(out, format=suffix, metadata=_METADATA[suffix])
    if suffix != "svg":
        return out.getvalue()
    text = out.getvalue().decode()
    start = text.index("<svg")
    head, rest = text[:start], text[start:]
    opening, _, body = rest.partition(">")
    return f"{head}{opening} {_labelled(chart)}>\n {_words(chart)}{body}".encode()


def inline_svg(chart: Chart) -> str:
    """The chart as an element of an HTML page: ids of its own, text as text, sized by the page."""
    out = io.StringIO()
    # Letters as paths would make the page three times as large, and nobody could copy them.
    with mpl.rc_context(STYLE | {"svg.fonttype": "none"}):
        figure_of(chart).savefig(out, format="svg", metadata=_METADATA["svg"], transparent=True)
    root = ElementTree.fromstring(out.getvalue())
    box = root.attrib["viewBox"]
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name in [name for name in element.attrib if "}" in name]:
            element.attrib[name.rpartition("}")[2]] = element.attrib.pop(name)
    # The style sheet of matplotlib's SVG would apply to every element of the page.
    body = [part for part in root if part.tag != "metadata" and part.find("style") is None]
    _rename_ids(body, chart.name)
    text = "".join(ElementTree.tostring(part, encoding="unicode") for part in body)
    text = re.sub(r"(?<=\d\.\d\d)\d+", "", text)  # hundredths of a point are enough
    return (
        f'<svg class="chart" viewBox="{box}" {_labelled(chart)} stroke-linejoin="round">'
        f"{_words(chart)}{text}</svg>"
    )


def _labelled(chart: Chart) -> str:
    return f'role="img" aria-labelledby="{chart.name}-title {chart.name}-text"'


def _words(chart: Chart) -> str:
    """Title and text alternative."""
    return (
        f'<title id="{chart.name}-title">{escape(chart.title)}</title>'
        f'<desc id="{chart.name}-text">{escape(chart.text)}</desc>'
    )


def _rename_ids(parts: Sequence[ElementTree.Element], prefix: str) -> None:
    """Let ids that something refers to begin with the chart's name, and drop the others.

    Several charts stand in one page, where an id may occur only once.
    """
    elements = [element for part in parts for element in part.iter()]
    values = " ".join(value for element in elements for value in element.attrib.values())
    used = dict.fromkeys(re.findall(r"#(\w+)", values))
    names = {old: f"{prefix}-{number}" for number, old in enumerate(used)}
    for element in elements:
        own = element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            if value.startswith(("#", "url(#")):
                element.attrib[name] = re.sub(r"#(\w+)", lambda m: f"#{names[m[1]]}", value)
        if own in names:
            element.attrib["id"] = names[own]


def _line_figure(chart: LineChart) -> Figure:
    """Lines with markers, and a band from the lowest to the highest seed."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    for line in chart.lines:
        _draw_line(axes, line)
    points = [point for line in chart.lines for point in line.points]
    first, last = min(p.epoch for p in points), max(p.epoch for p in points)
    # Scores climb far in the first epochs; on an axis over all of them the later ones, in which
    # the methods differ, would lie on one line.
    settled = [p for p in points if p.epoch >= first + _CLIMB * (last - first)]
    across = ticks_over([first, last], is_count=True)
    up = ticks_over([end for p in settled for end in (p.low, p.high)], lowest=0.0)
    axes.set(xlabel="epoch", ylabel=chart.y, ylim=(up[0], up[-1]))
    axes.set_xlim(across[0], across[-1] + _MARGIN * (across[-1] - across[0]))
    axes.set_xticks(across)
    axes.set_yticks(up)
    axes.grid(axis="y")
    longest = max(len(line.label) for line in chart.lines)
    columns = max(1, min(len(chart.lines), _LEGEND_LETTERS // (longest + 9)))
    # With the labels as arguments: matplotlib itself leaves out those that begin with "_".
    labels = [line.label for line in chart.lines]
    figure.legend(axes.get_lines(), labels, loc="outside upper left", ncols=columns)
    return figure


def _draw_line(axes: Axes, line: Series) -> None:
    epochs = [point.epoch for point in line.points]
    style = line.style % len(COLOURS)
    every = max(1, len(epochs) // _MOST_MARKERS)
    axes.plot(
        epochs,
        [point.mean for point in line.points],
        color=COLOURS[style],
        linestyle=_DASHES[style],
        linewidth=1.5,
        marker=_MARKERS[style],
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        markevery=((len(epochs) - 1) % every, every),
        label=line.label,
    )
    if line.seeds > 1:
        lows, highs = ([getattr(p, end) for p in line.points] for end in ("low", "high"))
        axes.fill_between(epochs, lows, highs, color=COLOURS[style], alpha=0.16, linewidth=0)


def _bar_figure(chart: BarChart) -> Figure:
    """Bars around zero, the value of each at the right, whiskers to the ends of its runs."""
    height = 0.6 + _BAR_HEIGHT * len(chart.bars)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    for number, bar in enumerate(chart.bars):
        _draw_bar(axes, number, bar)
    across = ticks_over([0.0, *(end for bar in chart.bars for end in (bar.low, bar.high))])
    axes.axvline(0.0, color=_SOFT, linewidth=0.8)
    axes.set(xlabel=chart.x, xlim=(across[0], across[-1]), ylim=(len(chart.bars) - 0.4, -0.6))
    axes.set_xticks(across)
    axes.set_yticks(range(len(chart.bars)), [bar.label for bar in chart.bars])
    axes.tick_params(axis="y", length=0, labelcolor=_INK)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    return figure


def _draw_bar(axes: Axes, number: int, bar: Bar) -> None:
    axes.barh(number, bar.value, height=0.64, color=_GAIN if bar.value >= 0 else _LOSS)
    if bar.high > bar.low:
        ends = [[bar.value - bar.low], [bar.high - bar.value]]
        axes.errorbar(bar.value, number, xerr=ends, ecolor=_INK, elinewidth=0.8, capsize=2)
    axes.text(
        1.02,
        number,
        _signed(bar.value),
        transform=axes.get_yaxis_transform(),
        verticalalignment="center_baseline",
    )


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\u2212")


def ticks_over(
    values: Iterable[float], *, is_count: bool = False, lowest: float = -inf
) -> list[float]:
    """Round ticks, the first and the last of which are the ends of an axis.

    Args:
        values: finite or not; those that are not finite are left out.
        is_count: ticks are whole numbers.
        lowest: below which no value can be; 0 for a percentage.
    """
    finite = [value for value in values if isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:
        margin = 1.0 if is_count else 0.5
        low, high = max(low - margin, lowest), high + margin
    locator = MaxNLocator(nbins=_NUM_TICKS, steps=[1, 2, 5, 10], integer=is_count)
    return [float(tick) for tick in locator.tick_values(low, high)]
