"""Which classes gain: bars of the difference in IoU, for every difference row of a table."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from orchestrator.report.svg import Bar, Chart, bar_chart
from orchestrator.results import Row
from orchestrator.tables.entry_ids import slug
from orchestrator.tables.filled import Entry, Epoch, FilledBlock, FilledTable


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
