"""Two sets of results of one grid, cell by cell: how far they differ, and what changed in between.

The two sets are called here and there: two roots, rows of two commits, or ours and the paper's.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from orchestrator.results.counted import data_of, has_same_weights, is_same
from orchestrator.results.row import Row
from orchestrator.statistics.significance import ALPHA, holm, interval_of_pairs, sign_flip
from orchestrator.tables.filled import FilledTable, TableEntry
from trainer.config.fingerprint import settings_differences

# Columns of a row that say which code and which machine made it, with the words for them.
_MADE_BY = {
    "git_commit": "commit",
    "git_dirty": "uncommitted changes",
    "torch": "torch",
    "cuda": "CUDA",
    "device": "device",
    "world_size": "ranks",
}


@dataclass(frozen=True)
class Difference:
    """What here and there print for one cell, over the seeds that both have.

    Attributes:
        group: the cell's key without its seed.
        here: mean mIoU in percent.
        there: likewise.
        by_seed: here minus there of each seed, in percentage points.
        interval: of the mean difference, see `interval_of_pairs`; None for few seeds.
        p: of the exact sign-flip test over the seeds, two-sided.
        p_holm: corrected after Holm for all cells that are compared.
        has_same_bits: whether all final weights are equal; None where that is not known.
        has_same_data: False where images, masks, lists or first weights are known to differ.
        changed: settings, data, code and machine, such as ``optim.lr: 0.001 -> 0.002``, from there
            to here.
    """

    group: str
    here: float
    there: float
    by_seed: dict[int, float]
    interval: tuple[float, float] | None
    p: float
    p_holm: float = 1.0
    has_same_bits: bool | None = None
    has_same_data: bool = True
    changed: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Mean difference in percentage points."""
        return fmean(self.by_seed.values())

    @property
    def is_significant(self) -> bool:
        """At 5 %, over all cells that are compared."""
        return self.p_holm <= ALPHA


@dataclass(frozen=True)
class Overall:
    """The mean difference over all cells of the same data; each counts by its pairs of seeds.

    Attributes:
        n: number of pairs.
        mean: in percentage points.
        interval: see `interval_of_pairs`.
        p: of the sign-flip test, two-sided.
    """

    n: int
    mean: float
    interval: tuple[float, float] | None
    p: float


@dataclass(frozen=True)
class GridDiff:
    """The comparison of a grid's results.

    Attributes:
        differences: the largest first.
        overall: None where no cells of the same data are compared.
        only_here: keys of cells that have no result there.
        only_there: likewise; with the paper, of cells without a result of ours.
        left_out: keys of cells whose configuration or data is another one than that of most seeds
            of their own side, so that neither side averages them.
    """

    differences: tuple[Difference, ...]
    overall: Overall | None
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]
    left_out: tuple[str, ...]


def grid_diff(
    here: Sequence[FilledTable], there: Sequence[FilledTable], groups: Collection[str]
) -> GridDiff:
    """Compare the results of two roots or of two commits.

    Args:
        here: the grid's tables, filled with the results of one side.
        there: the same tables with those of the other side.
        groups: keys without a seed of the cells to compare.
    """
    ours, theirs = _by_group(here, groups), _by_group(there, groups)
    compared: list[Difference] = []
    only_here: list[str] = []
    only_there: list[str] = []
    for group, entry in ours.items():
        other = theirs[group]
        mine, others = ({row.seed: row for row in e.results} for e in (entry, other))
        only_here += [row.key for seed, row in mine.items() if seed not in others]
        only_there += [row.key for seed, row in others.items() if seed not in mine]
        pairs = [(mine[seed], others[seed]) for seed in sorted(mine.keys() & others.keys())]
        if pairs:
            values = {row.seed: (entry.by_seed(), other.by_seed()) for row, _ in pairs}
            both = {seed: (one[seed], two[seed]) for seed, (one, two) in values.items()}
            compared.append(_with_changes(_difference(group, both), pairs))
    apart = [row.key for e in (*ours.values(), *theirs.values()) for row in e.apart]
    return _whole(compared, only_here, only_there, apart)


def paper_diff(tables: Sequence[FilledTable], groups: Collection[str]) -> GridDiff:
    """Compare our results with the values that the paper prints, or quotes, for the same cells.

    Args:
        tables: the grid's tables, filled with our results.
        groups: keys without a seed of the cells to compare.
    """
    ours = _by_group(tables, groups)
    published: dict[tuple[str, float], None] = {}  # a cell of two tables may have two values
    for table in tables:
        for group, entry in _by_group([table], groups).items():
            if entry.published is not None:
                published[group, entry.published] = None
    compared = [
        _difference(group, {seed: (value, paper) for seed, value in ours[group].by_seed().items()})
        for group, paper in published
        if ours[group].values
    ]
    printed = {group for group, _ in published}
    only_here = [row.key for g, e in ours.items() if g not in printed for row in e.results]
    missing = [e.cell.key for g, e in ours.items() if e.cell and g in printed and not e.values]
    apart = [row.key for entry in ours.values() for row in entry.apart]
    return _whole(compared, only_here, missing, apart)


def _by_group(tables: Iterable[FilledTable], groups: Collection[str]) -> dict[str, TableEntry]:
    """The entries of our rows by the group of their cell."""
    named = {
        entry.cell.key.rpartition(".s")[0]: entry
        for table in tables
        for entry in table.entries
        if entry.cell is not None
    }
    return {group: entry for group, entry in named.items() if group in groups}


def _difference(group: str, both: dict[int, tuple[float, float]]) -> Difference:
    """The difference of one cell from the values (here, there) of each seed."""
    by_seed = {seed: one - other for seed, (one, other) in both.items()}
    return Difference(
        group=group,
        here=fmean(one for one, _ in both.values()),
        there=fmean(other for _, other in both.values()),
        by_seed=by_seed,
        interval=interval_of_pairs([tuple(by_seed.values())]),
        p=sign_flip(tuple(by_seed.values())).p,
    )


def _with_changes(difference: Difference, pairs: Sequence[tuple[Row, Row]]) -> Difference:
    """The difference with what changed between its rows, each a pair of (here, there)."""
    weights = [(one.weights_sha256, other.weights_sha256) for one, other in pairs]
    is_known = all(one and other for one, other in weights)
    return replace(
        difference,
        has_same_bits=all(one == other for one, other in weights) if is_known else None,
        has_same_data=not any(True for pair in pairs for _ in _data_changes(*pair)),
        changed=tuple(dict.fromkeys(line for pair in pairs for line in _changes(*pair))),
    )


def _changes(here: Row, there: Row) -> Iterator[str]:
    """What differs between two rows of one cell: settings, data, code, machine."""
    if here.settings_sha256 != there.settings_sha256:
        yield from settings_differences(there.config_json, here.config_json)
    yield from _data_changes(here, there)
    for name, word in _MADE_BY.items():
        before, now = (_short(name, getattr(row, name)) for row in (there, here))
        if before != now:
            yield f"{word}: {before} -> {now}"


def _data_changes(here: Row, there: Row) -> Iterator[str]:
    if not is_same(data_of(here), data_of(there)):
        yield f"images or masks: {data_of(there)[:8]} -> {data_of(here)[:8]}"
    lists = there.split_checksum or "", here.split_checksum or ""
    if not is_same(*lists):
        yield f"split lists: {lists[0][:8]} -> {lists[1][:8]}"
    if not has_same_weights(here, there):
        files = there.pretrained_sha256 or "", here.pretrained_sha256 or ""
        yield f"first weights: {files[0][:8]} -> {files[1][:8]}"


def _short(name: str, value: object) -> str:
    text = "unknown" if value is None else str(value)
    return text[:10] if name == "git_commit" else text


def _whole(
    compared: Sequence[Difference],
    only_here: Iterable[str],
    only_there: Iterable[str],
    left_out: Iterable[str],
) -> GridDiff:
    """The comparison, with corrected p-values and the mean over all cells."""
    corrected = holm([difference.p for difference in compared])
    whole = [replace(d, p_holm=p) for d, p in zip(compared, corrected, strict=True)]
    return GridDiff(
        differences=tuple(sorted(whole, key=lambda d: (-abs(d.mean), d.group))),
        overall=_overall([tuple(d.by_seed.values()) for d in compared if d.has_same_data]),
        only_here=tuple(only_here),
        only_there=tuple(only_there),
        left_out=tuple(dict.fromkeys(left_out)),
    )


def _overall(groups: Sequence[tuple[float, ...]]) -> Overall | None:
    values = [value for group in groups for value in group]
    if not values:
        return None
    return Overall(len(values), fmean(values), interval_of_pairs(groups), sign_flip(values).p)
