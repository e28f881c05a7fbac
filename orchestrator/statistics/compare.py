"""Paired comparisons of the methods of a table, within its blocks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from math import ceil
from statistics import fmean

from orchestrator.statistics.sequential import Decision, decisions
from orchestrator.statistics.significance import (
    ALPHA,
    holm,
    interval_of_pairs,
    pairs_needed,
    sign_flip,
    smallest_p,
)
from orchestrator.tables.filled import FilledBlock, FilledRow, FilledTable, TableEntry


@dataclass(frozen=True)
class Comparison:
    """A method against one rival, pair by pair of (split, seed).

    Attributes:
        block: the table's block; empty where it has no label.
        new: the method.
        rival: what it is compared with.
        column: head of the one column, or empty for all columns together.
        groups: differences by column, new minus rival, in percentage points; one group where the
            columns are replicates.
        interval: of the mean; None where a split has one seed only, or all have few pairs.
        p: of the exact sign-flip test, two-sided.
        p_holm: corrected for all rivals of `new` in this block and column.
        rivals: how many these are.
        is_exact: every sign pattern was counted.
        is_main: the table itself prints this difference.
        replicates: how many columns were taken as replicates of one setting; 0 where they are not.
        decision: where the seeds run until settled; p is the sequential one then, and there is no
            interval, since that of a fixed number of seeds does not hold.
    """

    block: str
    new: str
    rival: str
    column: str
    groups: tuple[tuple[float, ...], ...]
    interval: tuple[float, float] | None
    p: float
    p_holm: float
    rivals: int
    is_exact: bool
    is_main: bool = False
    replicates: int = 0
    decision: Decision | None = None

    @property
    def differences(self) -> tuple[float, ...]:
        """Of all pairs."""
        return tuple(value for group in self.groups for value in group)

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.differences)

    @property
    def mean(self) -> float:
        """Mean difference in percentage points."""
        return fmean(self.differences)

    @property
    def is_significant(self) -> bool:
        """At 5 %, over all rivals."""
        return self.p_holm <= ALPHA

    @property
    def is_reachable(self) -> bool:
        """Whether any outcome of so many pairs could be significant."""
        return self.smallest_p_holm <= ALPHA

    @property
    def num_different(self) -> int:
        """Pairs with a difference; the others say nothing about a sign."""
        return sum(value != 0.0 for value in self.differences)

    @property
    def smallest_p_holm(self) -> float:
        """The least corrected p that any outcome of so many pairs can give."""
        return min(1.0, smallest_p(self.num_different) * self.rivals)

    @property
    def seeds_needed(self) -> int:
        """Seeds on each of these splits with which significance can be reached."""
        return ceil(pairs_needed(self.rivals) / max(len(self.groups), 1))


@lru_cache(maxsize=64)  # every printer of a table asks
def comparisons(filled: FilledTable, *, by_column: bool = False) -> tuple[Comparison, ...]:
    """Every method that the table sets against a baseline, against each of its rivals.

    In a block with a difference row, its first method meets every other row of ours there. In a
    table with an average row, each column meets the baseline column over all rows. Where the seeds
    run until settled, only what the design states is compared, by its own test.

    Args:
        filled: the table.
        by_column: each column for itself, rather than all together.
    """
    if filled.design is not None:
        made = decisions(filled, filled.design) if not by_column else ()
        return tuple(_decided(one, filled.table.replicates) for one in made if one.look)
    families = [list(_in_block(filled, block, by_column)) for block in filled.blocks]
    families.append(list(_across(filled)) if not by_column else [])
    return tuple(comparison for family in families for comparison in family)


def _decided(decision: Decision, is_pooled: bool) -> Comparison:
    """The comparison of a design at its last look."""
    groups = decision.differences
    return Comparison(
        block=decision.pair.block,
        new=decision.pair.new,
        rival=decision.pair.rival,
        column="",
        groups=(tuple(chain(*groups)),) if is_pooled else groups,
        interval=None,
        p=decision.p,
        p_holm=decision.p_holm,
        rivals=decision.rivals,
        is_exact=True,
        is_main=True,
        replicates=len(groups) if is_pooled else 0,
        decision=decision,
    )


def _in_block(filled: FilledTable, block: FilledBlock, by_column: bool) -> Iterator[Comparison]:
    """Methods of difference rows against the other rows of their block."""
    ours = {row.row.label: row for row in block.rows if row.row.kind == "ours"}
    heads = [" ".join(parts) for parts in zip(*filled.table.heads(), strict=True)]
    columns = range(len(heads))
    news = dict.fromkeys(row.row.minus[0] for row in block.rows if row.row.minus)
    for new in news:
        rivals = [row for label, row in ours.items() if label != new]
        for chosen in [[i] for i in columns] if by_column else [list(columns)]:
            names = (block.label, new, heads[chosen[0]] if by_column else "")
            pairs = {r.row.label: _groups(ours[new], r, chosen) for r in rivals if new in ours}
            base = {
                row.row.minus[1] for row in block.rows if row.row.minus and row.row.minus[0] == new
            }
            counts = {rival: sum(map(bool, groups)) for rival, groups in pairs.items()}
            pooled = filled.table.replicates and not by_column
            if pooled:
                pairs = {rival: [tuple(chain(*groups))] for rival, groups in pairs.items()}
            for comparison in _family(names, pairs):
                yield replace(
                    comparison,
                    is_main=comparison.rival in base,
                    replicates=counts[comparison.rival] if pooled else 0,
                )


def _across(filled: FilledTable) -> Iterator[Comparison]:
    """Columns against the baseline column of an average row."""
    ours = [row for row in filled.rows if row.row.kind == "ours"]
    heads = [" ".join(parts) for parts in zip(*filled.table.heads(), strict=True)]
    for average in filled.rows:
        base = average.row.baseline
        if base is None:
            continue
        pairs = {
            head: [_differences(row.entries[i], row.entries[base]) for row in ours]
            for i, head in enumerate(heads)
            if i != base
        }
        for family in _family(("", heads[base], ""), pairs):
            # Here the baseline is what all others are held against.
            yield replace(family, new=family.rival, rival=heads[base], is_main=True)


def _groups(new: FilledRow, rival: FilledRow, columns: Iterable[int]) -> list[tuple[float, ...]]:
    return [_differences(new.entries[i], rival.entries[i]) for i in columns]


def _differences(new: TableEntry, rival: TableEntry) -> tuple[float, ...]:
    return tuple(one - other for one, other in new.paired(rival).values())


def _family(
    names: tuple[str, str, str], pairs: Mapping[str, Sequence[tuple[float, ...]]]
) -> Iterator[Comparison]:
    """The comparisons that one correction covers; rivals without a pair are left out."""
    kept = {name: tuple(group for group in groups if group) for name, groups in pairs.items()}
    kept = {name: groups for name, groups in kept.items() if groups}
    tests = [sign_flip([v for group in groups for v in group]) for groups in kept.values()]
    corrected = holm([test.p for test in tests])
    block, new, column = names
    for (rival, groups), test, p_holm in zip(kept.items(), tests, corrected, strict=True):
        yield Comparison(
            block=block,
            new=new,
            rival=rival,
            column=column,
            groups=groups,
            interval=interval_of_pairs(groups),
            p=test.p,
            p_holm=p_holm,
            rivals=len(kept),
            is_exact=test.is_exact,
        )
