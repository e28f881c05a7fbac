"""Learning curves and mask ratios: one picture per setting, one line per method."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean

from orchestrator.report.material import EpochFacts, Material
from orchestrator.report.svg import STYLES, Chart, Point, Series, legend, line_chart
from orchestrator.tables.entry_ids import slug
from orchestrator.tables.filled import FilledTable
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


def panels(material: Material) -> Iterator[Panel]:
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


def _cells(material: Material) -> Iterator[Cell]:
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
