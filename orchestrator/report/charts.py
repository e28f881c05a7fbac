"""Which classes are taken for which: row-normalised confusion matrices, drawn as tables."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from orchestrator.report.data import EpochFacts, ReportData
from orchestrator.report.html import words
from orchestrator.report.svg import STYLES, Bar, Chart, Point, Series, bar_chart, legend, line_chart
from orchestrator.results.store import Row
from orchestrator.tables.filled import Entry, Epoch, FilledBlock, FilledTable
from orchestrator.tables.text import named_entries, slug
from sweeps.cell import Cell

Setting = tuple[str, str, int, str]  # recipe, backbone, crop, split
Method = tuple[str, str]  # method, loss


@dataclass(frozen=True)
class Panel:
    """The pictures of one setting, as SVG; `ratios` is empty where no method has a mask."""

    title: str
    legend: str
    scores: str
    ratios: str


def panels(material: ReportData) -> Iterator[Panel]:
    """A panel for every setting of the grid that has a run with history, in the grid's order."""
    names = method_names(material.tables, material.plan.grid.cells)
    grouped: dict[Setting, dict[Method, list[tuple[EpochFacts, ...]]]] = {}
    for cell in _cells(material):
        runs = grouped.setdefault((cell.recipe, cell.backbone, cell.crop, cell.split), {})
        own = runs.setdefault((cell.method, cell.loss), [])
        if cell.key in material.histories:
            own.append(material.histories[cell.key])
    for setting, by_method in grouped.items():
        runs = {method: by_method[method] for method in names if by_method.get(method)}
        if runs:
            yield _panel(setting, runs, names)


def method_names(tables: Iterable[FilledTable], cells: Iterable[Cell]) -> dict[Method, str]:
    """What most rows of the tables call each method and loss; all are distinct."""
    called: dict[Method, Counter[str]] = {}
    for filled in tables:
        for method, label in _labels(filled):
            called.setdefault(method, Counter())[label] += 1
    names = {method: labels.most_common(1)[0][0] for method, labels in called.items()}
    for cell in cells:
        plain = cell.method if cell.loss == "none" else f"{cell.method} + {cell.loss}"
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
    return Series(label, style % STYLES, seeds, points)


def _cells(material: ReportData) -> Iterator[Cell]:
    """The grid's cells, then those at other seeds that have a row."""
    own = dict.fromkeys(material.plan.grid.cells)
    yield from own
    yield from (row.cell for row in material.rows if row.cell not in own)


def _panel(
    setting: Setting, runs: dict[Method, list[tuple[EpochFacts, ...]]], names: dict[Method, str]
) -> Panel:
    recipe, backbone, crop, split = setting
    title = f"{recipe}, split {split}, {backbone}, crop {crop}"
    styles = {method: number for number, method in enumerate(names)}
    scores, ratios = (
        [
            found
            for method, own in runs.items()
            if (found := series_of(names[method], styles[method], own, value)).points
        ]
        for value in (_score, _ratio)
    )
    name = f"curve-{slug(title)}"
    return Panel(
        title,
        legend(scores or ratios),
        _chart(f"{name}-miou", f"Validation mIoU: {title}", "mIoU (%)", scores),
        _chart(f"{name}-mask", f"Mask ratio: {title}", "confident pixels (%)", ratios),
    )


def _score(facts: EpochFacts) -> float | None:
    return facts.miou_percent


def _ratio(facts: EpochFacts) -> float | None:
    return None if facts.mask_ratio is None else 100.0 * facts.mask_ratio


def _chart(name: str, title: str, y: str, series: list[Series]) -> str:
    if not series:
        return ""
    text = f"{y} by epoch. " + " ".join(map(_in_words, series))
    return line_chart(Chart(name, title, text, x="epoch", y=y), series)


def _in_words(series: Series) -> str:
    first, last = series.points[0], series.points[-1]
    best = max(series.points, key=lambda point: point.y)
    seeds = f"{series.seeds} seed{'' if series.seeds == 1 else 's'}"
    return (
        f"{series.label}, {seeds}: {first.y:.1f} at epoch {first.x:g}, highest {best.y:.1f} at "
        f"epoch {best.x:g}, {last.y:.1f} at epoch {last.x:g}."
    )


@dataclass(frozen=True)
class ClassPicture:
    """Bars of one difference row."""

    title: str
    pairs: int
    svg: str


def class_pictures(filled: FilledTable) -> Iterator[ClassPicture]:
    """A picture for each difference row with pairs of runs that know their classes."""
    for block in filled.blocks:
        for row in block.rows:
            if row.row.minus is not None:
                picture = _picture(filled, block, row.row.minus)
                if picture is not None:
                    yield picture


def class_differences(new: Entry, base: Entry, epoch: Epoch) -> Iterator[dict[str, float]]:
    """For each seed that both have: the difference in IoU of each class both have."""
    others = {row.seed: row for row in base.results}
    for row in new.results:
        other = others.get(row.seed)
        if other is not None and row.class_names == other.class_names:
            pairs = zip(row.class_names, _iou(row, epoch), _iou(other, epoch), strict=False)
            found = {n: a - b for n, a, b in pairs if a is not None and b is not None}
            if found:
                yield found


def _iou(row: Row, epoch: Epoch) -> tuple[float | None, ...]:
    return row.best_iou_percent if epoch == "best" else row.last_iou_percent


def _picture(
    filled: FilledTable, block: FilledBlock, minus: tuple[str, str]
) -> ClassPicture | None:
    rows = {row.row.label: row for row in block.rows}
    new, base = (rows[label].entries for label in minus)
    pairs = [
        found
        for one, other in zip(new, base, strict=True)
        for found in class_differences(one, other, filled.epoch)
    ]
    names = dict.fromkeys(name for pair in pairs for name in pair)
    values = {name: [pair[name] for pair in pairs if name in pair] for name in names}
    bars = [Bar(name, fmean(v), min(v), max(v)) for name, v in values.items()]
    if not bars:
        return None
    bars.sort(key=lambda bar: -bar.value)
    place = f" ({block.label})" if block.label else ""
    title = f"{minus[0]} minus {minus[1]}{place}, by class"
    gained = sum(bar.value > 0 for bar in bars)
    text = (
        f"Difference in IoU, percentage points, mean over {len(pairs)} pairs of runs. {gained} of "
        f"{len(bars)} classes gain. Most: {bars[0].label} {bars[0].value:+.1f}; least: "
        f"{bars[-1].label} {bars[-1].value:+.1f}."
    )
    name = f"classes-{slug(filled.table.name)}-{slug(title)}"
    chart = Chart(name, title, text, x="IoU difference (percentage points)")
    return ClassPicture(title, len(pairs), bar_chart(chart, bars))


MOST_CLASSES = 40  # with more, a table of pairs can no longer be read

_MISTAKES = 3  # said in words


@dataclass(frozen=True)
class Confusion:
    """The matrix of one entry of a table, over its seeds.

    Attributes:
        title: method, block and column.
        runs: number of runs whose pixels are summed.
        html: a figure with the matrix.
    """

    title: str
    runs: int
    html: str


def confusions(filled: FilledTable) -> Iterator[Confusion]:
    """A matrix of each method of each block, at the first column whose runs kept their counts."""
    heads = [" ".join(parts) for parts in zip(*filled.table.heads(), strict=True)]
    seen: set[tuple[str, str]] = set()
    for named in named_entries(filled):
        row = named.row.row
        across = filled.table.best == "across"  # methods are columns
        method = (named.block.label, heads[named.column] if across else row.label)
        found = _summed(named.entry.results, filled.epoch)
        if row.kind != "ours" or found is None or method in seen:
            continue
        seen.add(method)
        names, counts, runs = found
        parts = (row.label, named.block.label, heads[named.column])
        title = ", ".join(part for part in parts if part)
        yield Confusion(title, runs, _figure(f"confusion-{slug(named.name)}", title, names, counts))


def _summed(
    results: Sequence[Row], epoch: Epoch
) -> tuple[tuple[str, ...], NDArray[np.int64], int] | None:
    """Class names, pixels by truth and prediction, number of runs; None without any."""
    kept = [
        (row.class_names, counts)
        for row in results
        if (counts := row.best_confusion if epoch == "best" else row.last_confusion)
    ]
    names = kept[0][0] if kept else ()
    own = [np.array(counts, dtype=np.int64) for found, counts in kept if found == names]
    if not own or own[0].shape != (len(names), len(names)) or len(names) > MOST_CLASSES:
        return None
    return names, np.sum(own, axis=0), len(own)


def _figure(name: str, title: str, names: Sequence[str], counts: NDArray[np.int64]) -> str:
    totals = counts.sum(1, keepdims=True)
    parts = counts / np.maximum(totals, 1)
    head = "".join(f'<th scope="col"><span>{escape(n)}</span></th>' for n in names)
    lines = "".join(
        f'<tr><th scope="row">{escape(names[i])}</th>{"".join(map(_cell, parts[i]))}</tr>'
        for i in range(len(names))
        if totals[i, 0]
    )
    said = escape(f"{title}: true classes by predicted classes, in percent of the true class")
    return (
        f'<figure class="confusion" id="{name}"><figcaption>{words(_text(names, counts))}'
        f'</figcaption><div class="scroll" role="region" tabindex="0" aria-label="{said}">'
        f'<table aria-label="{said}"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div></figure>"
    )


def _cell(part: float) -> str:
    """A percentage on a ground as dark as it is large; next to nothing stays empty."""
    percent = round(100 * float(part))
    if percent == 0:
        return "<td></td>"
    return f'<td style="--part:{percent}%">{percent}</td>'


def _text(names: Sequence[str], counts: NDArray[np.int64]) -> str:
    """The largest mistakes in words, measured in parts of the true class."""
    wrong = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(wrong, 0.0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    found = [divmod(int(place), len(names)) for place in order if wrong.flat[place] > 0]
    if not found:
        return "No pixel is taken for another class."
    told = (f"{100 * wrong[i, j]:.0f} % of {names[i]} for {names[j]}" for i, j in found)
    return f"Taken for another class most often: {'; '.join(told)}."
