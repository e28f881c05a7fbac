"""The notes below a table: sources, missing results, mixed configurations, provenance."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from datasets.spec import absent_text
from orchestrator.results.counted import Today, differences, is_of_today
from orchestrator.results.store import Row as Result
from orchestrator.tables.filled import FilledRow, FilledTable, Mark, Note, TableEntry
from sweeps.table import Table, TableRow
from trainer.config.schema import Track


@dataclass(frozen=True)
class Rounding:
    """An improvement that the printed scores do not give.

    Attributes:
        printed: the improvement the paper prints.
        recomputed: from the scores it prints.
        is_explained: rounding alone can make the gap.
    """

    block: str
    row: str
    column: str
    printed: float
    recomputed: float
    is_explained: bool


def roundings(table: Table) -> Iterator[Rounding]:
    """Every improvement of a table that its printed scores do not give."""
    heads = [" ".join(parts) for parts in zip(*table.heads(), strict=True)]
    unit = 10.0**-table.decimals
    for block in table.blocks:
        by_label = {row.label: row for row in block.rows}
        for row in block.rows:
            for index, recomputed in enumerate(_recomputed(table, row, by_label)):
                printed = row.published[index]
                if printed is None or recomputed is None:
                    continue
                gap = abs(printed - recomputed)
                if gap > 0.51 * unit:
                    # Each of the three rounded numbers is off by at most half a unit.
                    names = (block.label, row.label, heads[index])
                    yield Rounding(*names, printed, recomputed, gap < 1.51 * unit)


def rounding_note(table: Table) -> str:
    """One sentence about all of them; empty where there are none."""
    rounded = list(roundings(table))
    if not rounded:
        return ""
    differing = "; ".join(
        f"{' '.join(filter(None, (r.block, r.column)))}: {r.printed:+.{table.decimals}f} printed, "
        f"{r.recomputed:+.{table.decimals}f} from the scores"
        for r in rounded
    )
    reason = "rounding after the subtraction explains it"
    if not all(r.is_explained for r in rounded):
        reason = "rounding alone does not explain all of it"
    return f"Improvements of the paper that differ from its printed scores ({reason}): {differing}."


def _recomputed(table: Table, row: TableRow, rows: dict[str, TableRow]) -> list[float | None]:
    """The row's values from the printed scores; None where they do not give one."""
    if row.minus is not None:
        new, base = (rows[label].published for label in row.minus)
        pairs = zip(new, base, strict=True)
        return [None if a is None or b is None else a - b for a, b in pairs]
    if row.baseline is not None:
        ours = [other.published for other in table.rows if other.kind == "ours"]
        return [_mean_gain(ours, index, row.baseline) for index in range(len(row.published))]
    return []


def _mean_gain(rows: list[tuple[float | None, ...]], column: int, baseline: int) -> float | None:
    gains = []
    for row in rows:
        new, base = row[column], row[baseline]
        if new is None or base is None:
            return None
        gains.append(new - base)
    return sum(gains) / len(gains) if gains else None


_EXPLAINED = {
    Mark.DRIFTED: "ran with another configuration, other first weights, images or lists than "
    "today's; launch with rerun=drifted to renew it",
    Mark.MIXED: "results of different configurations, first weights, images or lists are neither "
    "averaged nor compared",
    Mark.MACHINES: "its runs come from different commits, versions, devices or world sizes.",
}
_NO_CUDA = "none"
_COMPARED: dict[str, Callable[[Any], str]] = {  # in the order of `making`
    "git commits": lambda commit: (commit or "unknown")[:10],
    "torch versions": lambda version: version or "unknown",
    "CUDA versions": lambda version: version or _NO_CUDA,
    "devices": lambda name: name or "unknown",
    "world sizes": lambda size: str(size or "unknown"),
}


def notes_of(filled: FilledTable, today: Mapping[str, Today]) -> tuple[Note, ...]:
    """All lines below a table, in print order; `today` as for `fill`."""
    return (
        *(Note("", text) for text in filled.table.notes),
        *_own_notes(filled),
        *_designed(filled),
        *_quoted(filled),
        *_missing(filled),
        *_marked(filled, today),
        *_released(filled),
        *_absent(filled),
        *_provenance(filled),
    )


making: Callable[[Result], tuple[object, ...]] = attrgetter(
    "git_commit", "torch", "cuda", "device", "world_size"
)  # what code and what kind of machine a row comes from


def _own_notes(filled: FilledTable) -> Iterator[Note]:
    for row in filled.rows:
        if row.row.note:
            yield Note(str(row.number), f"{row.row.label}: {row.row.note}")
    rounding = rounding_note(filled.table)
    if rounding:
        yield Note("", rounding)


def _quoted(filled: FilledTable) -> Iterator[Note]:
    """Where numbers of other papers come from."""
    quoted = [row for row in filled.rows if row.row.kind == "quoted"]
    if quoted:
        sources = _by_source(quoted)
        yield Note(Mark.QUOTED.value, f"quoted as the paper prints it, not run here. {sources}")
    originals = [row for row in filled.rows if row.row.kind == "original"]
    if originals:
        text = "as the method's own authors print it, often on other lists or for longer."
        yield Note(Mark.ORIGINAL.value, f"{text} {_by_source(originals)}")
    known = ("quoted", "original")
    borrowed = [row for row in filled.rows if row.row.kind not in known and row.row.source]
    if borrowed:
        yield Note("", f"Published values that the paper itself took over: {_by_source(borrowed)}")


def _by_source(rows: Iterable[FilledRow]) -> str:
    pairs = dict.fromkeys(f"{row.row.label}: {row.row.source}" for row in rows)
    return "; ".join(pairs) + "."


def _missing(filled: FilledTable) -> Iterator[Note]:
    """How many cells have no result, and how many of those failed."""
    entries = list(filled.entries)
    missing = [entry for entry in entries if not entry.values]
    if not missing:
        return
    failed = sum(bool(entry.failed) for entry in missing)
    text = f"cells without a result: {len(missing)} of {len(entries)}"
    yield Note("--", f"{text} ({failed} failed)." if failed else f"{text}.")


def _marked(filled: FilledTable, today: Mapping[str, Today]) -> Iterator[Note]:
    entries = [entry for row in filled.rows for entry in row.entries]
    for mark, text in _EXPLAINED.items():
        if any(mark in entry.marks for entry in entries):
            more = {Mark.MIXED: _left_out(filled, today), Mark.DRIFTED: _unplanned(entries, today)}
            yield Note(mark.value, text + more.get(mark, ""))
    if any(Mark.FEWER_SEEDS in entry.marks for entry in entries):
        yield Note("n", f"the number of seeds, where it is less than {len(filled.seeds)}.")


def _released(filled: FilledTable) -> Iterator[Note]:
    """Which rows are not of the common track."""
    rows = [
        row.row.label
        for row in filled.rows
        if any(one.track == Track.released.value for e in row.entries for one in e.results)
    ]
    if rows:
        text = "network, optimiser, augmentation and evaluation of the released code of the method"
        yield Note("", f"{', '.join(dict.fromkeys(rows))}: track=released, {text}.")


def _designed(filled: FilledTable) -> Iterator[Note]:
    """How many seeds are planned, and that only planned comparisons are tested."""
    kinds = ("difference", "average")
    if filled.design is None or not any(row.row.kind in kinds for row in filled.rows):
        return
    table = filled.design.tables.get(filled.table.name)
    if table is None:
        yield Note(
            "",
            "The seeds of this grid run until settled, by a design stated before the first of "
            "them for other settings, another epoch or other tables; so nothing is tested here.",
        )
        return
    looks = ", ".join(str(look.seeds) for look in table.looks)
    yield Note(
        "",
        f"Seeds until settled, at most {len(filled.design.seeds)}: planned looks after {looks}, "
        "stated before the first seed. Means of rows that stopped early are drawn away from zero.",
    )


def _absent(filled: FilledTable) -> Iterator[Note]:
    """Which classes no validation mask shows, and whether they count."""
    results = [row for entry in filled.entries for row in entry.results if row.absent_classes]
    places: dict[str, dict[str, None]] = {}
    for row in results:
        text = absent_text(row.absent_classes, row.absent_rule)
        places.setdefault(text, {})[f"{row.recipe} {row.split}"] = None
    for text, named in places.items():
        yield Note("", f"{', '.join(named)}: {text}")


def _left_out(filled: FilledTable, today: Mapping[str, Today]) -> str:
    """Which rows the printed numbers leave out: the end of the sentence about them."""
    heads = [" ".join(parts) for parts in zip(*filled.table.heads(), strict=True)]
    texts = []
    for row in filled.rows:
        for head, entry in zip(heads, row.entries, strict=True):
            for one in entry.apart:
                score = one.best_miou_percent if filled.epoch == "best" else one.last_miou_percent
                value = "--" if score is None else f"{score:.{filled.table.decimals}f}"
                why = " and ".join(differences(entry.results[0], one))
                texts.append(f"{row.row.label}, {head}, seed {one.seed}: {value} ({why})")
    if not texts:
        return "."
    more = f"; and {len(texts) - _LEFT_OUT} more" if len(texts) > _LEFT_OUT else ""
    apart = [one for row in filled.rows for entry in row.entries for one in entry.apart]
    is_old = any(not is_of_today(row, today) for row in apart)
    cure = " Launch with rerun=drifted to renew them." if is_old else ""
    return f"; left out: {'; '.join(texts[:_LEFT_OUT])}{more}.{cure}"


def _unplanned(entries: Iterable[TableEntry], today: Mapping[str, Today]) -> str:
    """Seeds of drifted rows that no launch of this grid runs: the end of a sentence."""
    drifted = [row for entry in entries for row in entry.results if not is_of_today(row, today)]
    seeds = sorted({row.seed for row in drifted if not today[row.key].is_planned})
    if not seeds:
        return "."
    return f" (first add to the grid's `seeds` what it lacks: {', '.join(map(str, seeds))})."


_LEFT_OUT = 8  # rows that a note names


def _provenance(filled: FilledTable) -> Iterator[Note]:
    """Which code and machines ours come from; more than one of a kind is a warning."""
    results = [row for entry in filled.entries for row in entry.results]
    if not results:
        return
    makings = zip(*{making(row) for row in results}, strict=True)
    kinds = {
        name: sorted({shown(value) for value in values})
        for (name, shown), values in zip(_COMPARED.items(), makings, strict=True)
    }
    single = [
        f"{name.removesuffix('s')} {kind[0]}"
        for name, kind in kinds.items()
        if len(kind) == 1 and kind != [_NO_CUDA]
    ]
    mixed = [f"{len(k)} {name} ({', '.join(k)})" for name, k in kinds.items() if len(k) > 1]
    if single:
        yield Note("", f"Ours: {', '.join(single)}.")
    if mixed:
        yield Note("", f"Mixed: ours come from {', '.join(mixed)}; compare with care.")
    dirty = len({row.key for row in results if row.git_dirty})
    if dirty:
        yield Note("", f"Runs from a checkout with changes that were not committed: {dirty}.")
