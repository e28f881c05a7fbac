"""Small pictures as inline SVG: lines with bands, bars with whiskers; the page has the colours."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, inf, isfinite, log10


@dataclass(frozen=True)
class Scale:
    """Values of an axis laid onto a length of the picture.

    Attributes:
        low: value at `start`.
        high: value at `stop`.
        start: place of `low` in the picture.
        stop: place of `high`.
        step: between two ticks.
    """

    low: float
    high: float
    start: float
    stop: float
    step: float

    def __call__(self, value: float) -> float:
        """Place of a value."""
        part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.stop - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round values from end to end."""
        count = round((self.high - self.low) / self.step)
        return [self.low + self.step * index for index in range(count + 1)]

    def label(self, value: float) -> str:
        """A tick's text, with as many digits as the step needs."""
        digits = max(0, -floor(log10(self.step) + 1e-9))
        text = f"{value:.{digits}f}"
        return text.replace("-", "\u2212") if float(text) else text.lstrip("-")


def scale_over(
    values: Iterable[float],
    place: tuple[float, float],
    *,
    num_ticks: int = 5,
    least_step: float = 0.0,
    lowest: float = -inf,
) -> Scale:
    """A scale that covers the values and ends on round numbers.

    Args:
        values: finite or not; those that are not finite are left out.
        place: where the low and the high end lie in the picture.
        num_ticks: about how many ticks.
        least_step: between two ticks; 1 for what is counted.
        lowest: below which no value can be; 0 for a percentage.
    """
    finite = [value for value in values if isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:
        low, high = max(low - 0.5, lowest), high + 0.5
    step = max(_round_step((high - low) / num_ticks), least_step)
    return Scale(floor(low / step) * step, ceil(high / step) * step, *place, step)


def _round_step(rough: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


WIDTH, HEIGHT = 420, 250
STYLES = 6  # line styles in the page's style sheet, told apart by colour, dash and mark

_CLIMB = 0.2  # of the epochs, which may leave the picture below

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 40
_MARKS = (
    "M-3.2-3.2H3.2V3.2H-3.2Z",
    "M0-4.2L4.2 0L0 4.2L-4.2 0Z",
    "M0-4L4 3.2H-4Z",
    "M-4-3.2H4L0 4Z",
    "M-1.2-4H1.2V-1.2H4V1.2H1.2V4H-1.2V1.2H-4V-1.2H-1.2Z",
    "M-3.6 0A3.6 3.6 0 1 1 3.6 0A3.6 3.6 0 1 1-3.6 0Z",
)


@dataclass(frozen=True)
class Point:
    """A value with the lowest and highest of its seeds."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        style: 0 to `STYLES` - 1, the same for a method in every picture.
        seeds: how many the line is a mean of; a band is drawn from two on.
    """

    label: str
    style: int
    seeds: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Bar:
    """One bar from zero, with whiskers where `low` and `high` differ."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """What every picture says about itself.

    Attributes:
        name: unique on the page.
        title: what is drawn, shown above it by the page.
        text: the picture in words, for those who do not see it.
        x: label of the horizontal axis.
        y: label of the vertical axis; empty for bars, which carry their names.
    """

    name: str
    title: str
    text: str
    x: str
    y: str = ""


def line_chart(chart: Chart, series: Sequence[Series]) -> str:
    """Lines with a mark at each value and a band from the lowest to the highest seed."""
    points = [point for line in series for point in line.points]
    across = scale_over((point.x for point in points), (_LEFT, WIDTH - _RIGHT), least_step=1)
    # The first fifth climbs far; were it to set the scale, all that matters would be one line.
    first, last = min(p.x for p in points), max(p.x for p in points)
    settled = [p for p in points if p.x >= first + _CLIMB * (last - first)]
    ends = [end for point in settled for end in (point.low, point.high)]
    up = scale_over(ends, (HEIGHT - _BOTTOM, _TOP), lowest=0)
    clip = f"{chart.name}-clip"
    parts = [*_grid(across, up), *_labels(chart)]
    parts.append(
        f'<clipPath id="{clip}"><rect x="{_LEFT - 5}" y="{_TOP - 5}" '
        f'width="{WIDTH - _LEFT - _RIGHT + 10}" height="{HEIGHT - _TOP - _BOTTOM + 5}"/></clipPath>'
    )
    parts.append(f'<g clip-path="url(#{clip})">')
    parts += [_band(line, across, up) for line in series if line.seeds > 1]
    parts += [_line(line, across, up) for line in series]
    return _svg(chart, HEIGHT, [*parts, "</g>"])


def bar_chart(chart: Chart, bars: Sequence[Bar]) -> str:
    """Horizontal bars around zero, one under the other."""
    row, left = 18, 120
    bottom = _TOP + row * len(bars)
    ends = [0.0, *(end for bar in bars for end in (bar.low, bar.high))]
    across = scale_over(ends, (left, WIDTH - 44))
    parts = [
        f'<path class="grid" d="M{across(tick):.1f} {_TOP}V{bottom}"/>'
        f'<text class="tick" x="{across(tick):.1f}" y="{bottom + 15}" text-anchor="middle">'
        f"{across.label(tick)}</text>"
        for tick in across.ticks
    ]
    zero = across(0.0)
    for number, bar in enumerate(bars):
        parts += _bar(bar, across, _TOP + row * number, row)
    parts.append(f'<path class="axis" d="M{zero:.1f} {_TOP}V{bottom}"/>')
    middle = (left + WIDTH - 44) / 2
    parts.append(
        f'<text class="name" x="{middle:.1f}" y="{bottom + 32}" text-anchor="middle">'
        f"{escape(chart.x)}</text>"
    )
    return _svg(chart, bottom + 40, parts)


def legend(series: Iterable[Series]) -> str:
    """The lines' names, each beside a piece of its line."""
    items = [
        f'<li><svg class="key" viewBox="0 0 34 12" aria-hidden="true">'
        f'<path class="line s{line.style}" d="M1 6H33"/>'
        f'<path class="mark s{line.style}" transform="translate(17 6)" d="{_MARKS[line.style]}"/>'
        f"</svg>{escape(line.label)}</li>"
        for line in series
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _svg(chart: Chart, height: float, parts: Iterable[str]) -> str:
    name = escape(chart.name)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(chart.title)}</title>'
        f'<desc id="{name}-text">{escape(chart.text)}</desc>{"".join(parts)}</svg>'
    )


def _grid(across: Scale, up: Scale) -> list[str]:
    """Lines and numbers of both axes."""
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for tick in up.ticks:
        y = up(tick)
        parts.append(
            f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{up.label(tick)}</text>"
        )
    for tick in across.ticks:
        x = across(tick)
        parts.append(
            f'<path class="axis" d="M{x:.1f} {bottom}v4"/>'
            f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">'
            f"{across.label(tick)}</text>"
        )
    parts.append(f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>')
    return parts


def _labels(chart: Chart) -> list[str]:
    x, y = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + HEIGHT - _BOTTOM) / 2
    return [
        f'<text class="name" x="{x:.0f}" y="{HEIGHT - 5}" text-anchor="middle">'
        f"{escape(chart.x)}</text>",
        f'<text class="name" transform="translate(11 {y:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(chart.y)}</text>",
    ]


def _band(line: Series, across: Scale, up: Scale) -> str:
    there = [f"{across(p.x):.1f} {up(p.high):.1f}" for p in line.points]
    back = [f"{across(p.x):.1f} {up(p.low):.1f}" for p in reversed(line.points)]
    return f'<path class="band s{line.style}" d="M{"L".join([*there, *back])}Z"/>'


def _line(line: Series, across: Scale, up: Scale) -> str:
    places = [(across(p.x), up(p.y)) for p in line.points]
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    every = max(1, len(places) // 12)  # of 80 epochs, not 80 marks
    marks = "".join(
        f'<path class="mark s{line.style}" transform="translate({x:.1f} {y:.1f})" '
        f'd="{_MARKS[line.style]}"/>'
        for x, y in places[(len(places) - 1) % every :: every]
    )
    return f'<path class="line s{line.style}" d="M{way}"/>{marks}'


def _bar(bar: Bar, across: Scale, top: float, row: float) -> list[str]:
    zero, end, middle = across(0.0), across(bar.value), top + row / 2
    sign = "better" if bar.value >= 0 else "worse"
    parts = [
        f'<text class="tick" x="114" y="{middle + 4:.1f}" text-anchor="end">'
        f"{escape(bar.label)}</text>",
        f'<rect class="bar {sign}" x="{min(zero, end):.1f}" y="{top + 3:.1f}" '
        f'width="{max(abs(end - zero), 0.5):.1f}" height="{row - 6}"/>',
        f'<text class="tick" x="{WIDTH - 2}" y="{middle + 4:.1f}" text-anchor="end">'
        f"{_signed(bar.value)}</text>",
    ]
    if bar.high > bar.low:
        low, high = across(bar.low), across(bar.high)
        parts.append(
            f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} '
            f'{middle - 3:.1f}v6M{high:.1f} {middle - 3:.1f}v6"/>'
        )
    return parts


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\u2212")
