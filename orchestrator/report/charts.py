"""What the charts of a report show: learning curves, mask ratios, and differences by class.

A chart here is numbers and labels; `orchestrator.report.plots` draws it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean

from datasets.wording import quantity
from orchestrator.report.data import EpochFacts, ReportData
from orchestrator.results.row import Row
from orchestrator.tables.filled import Epoch, FilledBlock, FilledTable, TableEntry
from orchestrator.tables.text import slug
from sweeps.cell import Cell, axis_text

Protocol = tuple[str, str, int, str]  # recipe, backbone, crop, split
Method = tuple[str, str]  # method, loss
Runs = dict[Method, list[tuple[EpochFacts, ...]]]


@dataclass(frozen=True)
class Point:
    """The mean of the runs at one epoch, with the lowest and the highest run."""

    epoch: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        style: number of its colour, dash and marker, the same for a method in every chart.
        seeds: how many runs the line is a mean of; a band is drawn from two on.
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
class LineChart:
    """Numbers by epoch.

    Attributes:
        name: of the chart's file, and its id in the page.
        title: what is drawn.
        text: the chart in words, for those who do not see it.
        y: label of the vertical axis, with its unit.
    """

    name: str
    title: str
    text: str
    y: str
    lines: tuple[Series, ...]


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars around zero, one under the other; see `LineChart`."""

    name: str
    title: str
    text: str
    x: str
    bars: tuple[Bar, ...]


Chart = LineChart | BarChart


@dataclass(frozen=True)
class Panel:
    """The learning curves of one protocol; `ratios` is None where no method has a mask."""

    title: str
    scores: LineChart | None
    ratios: LineChart | None


@dataclass(frozen=True)
class ClassPanel:
    """The differences by class of one difference row of a table."""

    title: str
    pairs: int
    chart: BarChart


def charts(data: ReportData) -> Iterator[Chart]:
    """Every chart of a report, in its order."""
    for panel in panels(data):
        yield from (chart for chart in (panel.scores, panel.ratios) if chart is not None)
    for filled in data.tables:
        yield from (panel.chart for panel in class_panels(filled))


def panels(data: ReportData) -> Iterator[Panel]:
    """A panel for every protocol of the grid that has a run with history, in the grid's order."""
    names = method_names(data.tables, data.plan.grid.cells)
    grouped: dict[Protocol, Runs] = {}
    for cell in _cells(data):
        runs = grouped.setdefault((cell.recipe, cell.backbone, cell.crop, cell.split), {})
        own = runs.setdefault((cell.method, cell.loss), [])
        if cell.key in data.histories:
            own.append(data.histories[cell.key])
    for protocol, by_method in grouped.items():
        runs = {method: by_method[method] for method in names if by_method.get(method)}
        if runs:
            yield _panel(protocol, runs, names)


def method_names(tables: Iterable[FilledTable], cells: Iterable[Cell]) -> dict[Method, str]:
    """A distinct name for each method and loss: the one that most rows of the tables use."""
    called: dict[Method, Counter[str]] = {}
    for filled in tables:
        for method, label in _labels(filled):
            called.setdefault(method, Counter())[label] += 1
    names = {method: labels.most_common(1)[0][0] for method, labels in called.items()}
    for cell in cells:
        plain = axis_text(cell.method)
        plain += "" if cell.loss == "none" else f" + {axis_text(cell.loss)}"
        names.setdefault((cell.method, cell.loss), plain)
    labels = list(names.values())
    return {
        method: label if labels.count(label) == 1 else f"{label} ({' + '.join(method)})"
        for method, label in names.items()
    }


def _labels(filled: FilledTable) -> Iterator[tuple[Method, str]]:
    """Every row's name of a method: its label, or the column's head where methods are columns."""
    axes = sorted({"method", "loss"} & set(filled.table.columns[0]))
    for row in filled.table.rows:
        seen: dict[Method, str] = {}
        for column, cell in zip(filled.table.columns, row.cells, strict=bool(row.cells)):
            heads = [str(column[axis]) for axis in axes]
            label = " ".join(filled.table.labels.get(head, head) for head in heads)
            seen[cell.method, cell.loss] = label or row.label
        yield from seen.items()


def series_of(
    label: str,
    style: int,
    runs: Iterable[Iterable[EpochFacts]],
    value: Callable[[EpochFacts], float | None],
) -> Series:
    """The mean over runs at every epoch, with the lowest and the highest run."""
    by_epoch: dict[int, list[float]] = {}
    seeds = 0
    for run in runs:
        values = {facts.epoch: v for facts in run if (v := value(facts)) is not None}
        seeds += bool(values)
        for epoch, number in values.items():
            by_epoch.setdefault(epoch, []).append(number)
    points = tuple(
        Point(epoch, fmean(values), min(values), max(values))
        for epoch, values in sorted(by_epoch.items())
    )
    return Series(label, style, seeds, points)


def _cells(data: ReportData) -> Iterator[Cell]:
    """The grid's cells, then those at other seeds that have a row."""
    own = dict.fromkeys(data.plan.grid.cells)
    yield from own
    yield from (row.cell for row in data.rows if row.cell not in own)


def _panel(protocol: Protocol, runs: Runs, names: dict[Method, str]) -> Panel:
    recipe, backbone, crop, split = protocol
    title = f"{recipe}, split {split}, {backbone}, crop {crop}"
    styles = {method: number for number, method in enumerate(names)}
    scores, ratios = (
        [series_of(names[m], styles[m], own, value) for m, own in runs.items()]
        for value in (_score, _ratio)
    )
    name = f"curve-{slug(title)}"
    return Panel(
        title,
        _line_chart(f"{name}-miou", f"Validation mIoU: {title}", "mIoU (%)", scores),
        _line_chart(f"{name}-mask", f"Mask ratio: {title}", "confident pixels (%)", ratios),
    )


def _score(facts: EpochFacts) -> float | None:
    return facts.miou_percent


def _ratio(facts: EpochFacts) -> float | None:
    return None if facts.mask_ratio is None else 100.0 * facts.mask_ratio


def _line_chart(name: str, title: str, y: str, series: Iterable[Series]) -> LineChart | None:
    """The chart of the lines that have a point; None without any."""
    lines = tuple(line for line in series if line.points)
    if not lines:
        return None
    text = f"{y} by epoch. " + " ".join(map(_in_words, lines))
    return LineChart(name, title, text, y, lines)


def _in_words(series: Series) -> str:
    first, last = series.points[0], series.points[-1]
    best = max(series.points, key=lambda point: point.mean)
    seeds = quantity(series.seeds, "seed")
    return (
        f"{series.label}, {seeds}: {first.mean:.1f} at epoch {first.epoch}, highest "
        f"{best.mean:.1f} at epoch {best.epoch}, {last.mean:.1f} at epoch {last.epoch}."
    )


def class_panels(filled: FilledTable) -> Iterator[ClassPanel]:
    """A panel for each difference row with pairs of runs that know their classes."""
    for block in filled.blocks:
        for row in block.rows:
            if row.row.minus is not None:
                panel = _class_panel(filled, block, row.row.minus)
                if panel is not None:
                    yield panel


def class_differences(
    new: TableEntry, base: TableEntry, epoch: Epoch
) -> Iterator[dict[str, float]]:
    """For each seed that both have: the difference in IoU of each class both have."""
    others = {row.seed: row for row in base.results}
    for row in new.results:
        other = others.get(row.seed)
        if other is not None and row.class_names == other.class_names:
            scores = zip(row.class_names, _iou(row, epoch), _iou(other, epoch), strict=False)
            gains = {n: a - b for n, a, b in scores if a is not None and b is not None}
            if gains:
                yield gains


def _iou(row: Row, epoch: Epoch) -> tuple[float | None, ...]:
    return row.best_iou_percent if epoch == "best" else row.last_iou_percent


def _class_panel(
    filled: FilledTable, block: FilledBlock, minus: tuple[str, str]
) -> ClassPanel | None:
    rows = {row.row.label: row for row in block.rows}
    new, base = (rows[label].entries for label in minus)
    pairs = [
        gains
        for one, other in zip(new, base, strict=True)
        for gains in class_differences(one, other, filled.epoch)
    ]
    names = dict.fromkeys(name for pair in pairs for name in pair)
    values = {name: [pair[name] for pair in pairs if name in pair] for name in names}
    bars = [Bar(name, fmean(v), min(v), max(v)) for name, v in values.items()]
    if not bars:
        return None
    bars.sort(key=lambda bar: -bar.value)
    where = f" ({block.label})" if block.label else ""
    title = f"{minus[0]} minus {minus[1]}{where}, by class"
    gained = sum(bar.value > 0 for bar in bars)
    text = (
        f"Difference in IoU, percentage points, mean over {quantity(len(pairs), 'pair')} of runs. "
        f"{gained} of {len(bars)} classes gain. Most: {bars[0].label} {bars[0].value:+.1f}; least: "
        f"{bars[-1].label} {bars[-1].value:+.1f}."
    )
    name = f"classes-{slug(filled.table.name)}-{slug(title)}"
    chart = BarChart(name, title, text, "IoU difference (percentage points)", tuple(bars))
    return ClassPanel(title, len(pairs), chart)
