"""Seeds until settled: which comparisons of a table are decided at a planned look, and which go on.

A comparison is the paired differences of two rows, of `minus` or of an average gain. Its null
hypothesis: the joint distribution of its differences, over all seeds of the design and all columns,
stays the same when the sign of any of them is turned. It holds where the two methods are
exchangeable in every pair and the pairs are independent.

At look k the exact sign-flip test of all pairs so far gives p_k, and the look has the share w_k of
the error level, with shares that sum to at most 1. The sequential p-value is the least p_k / w_k of
the looks so far. Under the null hypothesis it is at most a with probability at most
sum_k P(p_k <= a w_k) <= a, whatever the looks have to do with each other. It only falls from look
to look, and Holm's procedure is monotone, so all that is rejected at any look would be rejected by
Holm's procedure (1979) after the last one, had every comparison run to its end. So the probability
of any false decision in the table is at most alpha, for every rule by which comparisons stop: that
of futility is not binding.

Shares follow the power family of Kim and DeMets (1987), which spends error as Lan and DeMets (1983)
do: after s of S seeds the part (s / S)^2 is spent. A look that could settle nothing spends nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from datasets.wording import quantity
from orchestrator.results.seed_design import Look, SeedDesign, TableDesign
from orchestrator.statistics.significance import ALPHA, holm, sign_flip, smallest_p
from orchestrator.tables.filled import FilledBlock, FilledTable, TableEntry

FUTILE_P = 0.5

_SPENDING_POWER = 2


@dataclass(frozen=True)
class RowPair:
    """Two rows, or columns, that a table sets against each other.

    Attributes:
        name: one in its table.
        block: the table's block; empty for an average over all.
        entries: pairs of (new, rival), one for each column, or for each row of an average.
    """

    name: str
    block: str
    new: str
    rival: str
    entries: tuple[tuple[TableEntry, TableEntry], ...]

    @property
    def groups(self) -> Iterator[str]:
        """Keys without a seed of the cells that it needs."""
        for entry in chain(*self.entries):
            if entry.cell is not None:
                yield entry.cell.key.rpartition(".s")[0]

    def differences(self, seeds: Sequence[int]) -> tuple[tuple[float, ...], ...] | None:
        """New minus rival by column and seed, in percentage points; None while one is missing."""
        groups = []
        for new, rival in self.entries:
            pairs = new.paired(rival)
            if any(seed not in pairs for seed in seeds):
                return None
            groups.append(tuple(pairs[seed][0] - pairs[seed][1] for seed in seeds))
        return tuple(groups)


@dataclass(frozen=True)
class Decision:
    """Where a comparison stands.

    Attributes:
        pair: what is compared.
        differences: by column, those that the decision rests on; none before the first look.
        look: number of its last look, from 1 on; 0 before the first.
        num_looks: that are planned.
        seeds: of every cell at that look.
        max_seeds: that are planned.
        p: the sequential p-value.
        p_holm: corrected for all comparisons that the design states for the table.
        rivals: how many these are.
        state: "settled", "futile", "ended" without an answer at the last look, or "open".
    """

    pair: RowPair
    differences: tuple[tuple[float, ...], ...]
    look: int
    num_looks: int
    seeds: int
    max_seeds: int
    p: float
    p_holm: float
    rivals: int
    state: Literal["settled", "futile", "ended", "open"]


def row_pairs(filled: FilledTable) -> dict[str, RowPair]:
    """The pairs of rows of ours that the table itself compares, by name."""
    pairs = (pair for index, block in enumerate(filled.blocks) for pair in _minus(block, index))
    return {pair.name: pair for pair in chain(pairs, _gains(filled))}


def _minus(block: FilledBlock, index: int) -> Iterator[RowPair]:
    """Those of the block's rows of differences."""
    rows = {row.row.label: row for row in block.rows}
    for row in block.rows:
        if row.row.minus is not None and all(rows[x].row.kind == "ours" for x in row.row.minus):
            new, rival = row.row.minus
            name = f"block {index + 1}, {block.label}: " if block.label else f"block {index + 1}: "
            entries = tuple(zip(rows[new].entries, rows[rival].entries, strict=True))
            yield RowPair(f"{name}{new} - {rival}", block.label, new, rival, entries)


def _gains(filled: FilledTable) -> Iterator[RowPair]:
    """Columns against the baseline column of a row of average gains."""
    ours = [row for row in filled.rows if row.row.kind == "ours"]
    heads = [" ".join(parts) for parts in zip(*filled.table.heads(), strict=True)]
    for base in {row.row.baseline for row in filled.rows if row.row.baseline is not None}:
        for column, head in enumerate(heads):
            if column != base:
                entries = tuple((row.entries[column], row.entries[base]) for row in ours)
                yield RowPair(f"all: {head} - {heads[base]}", "", head, heads[base], entries)


def table_design(filled: FilledTable, max_seeds: int) -> TableDesign | None:
    """The looks of a table; None where it compares nothing.

    Args:
        filled: the table, with results or without.
        max_seeds: of each cell.

    Raises:
        ValueError: no outcome of so many seeds could settle a comparison.
    """
    pairs = row_pairs(filled)
    if not pairs:
        return None
    columns = min(len(pair.entries) for pair in pairs.values())
    shares = _shares(columns, len(pairs), max_seeds)
    if not shares:
        need = next(n for n in range(max_seeds, 100) if _shares(columns, len(pairs), n))
        raise ValueError(
            f"Table {filled.table.name}: {quantity(max_seeds, 'seed')} cannot settle any of its "
            f"{quantity(len(pairs), 'comparison')} at {ALPHA:.0%}, whatever comes out; say "
            f"max_seeds={need} or "
            "more."
        )
    first = min(min(shares), -(-max_seeds // 2))
    looks = (Look(seeds, shares.get(seeds, 0.0)) for seeds in range(first, max_seeds + 1))
    return TableDesign(tuple(pairs), tuple(looks))


def _shares(columns: int, comparisons: int, max_seeds: int) -> dict[int, float]:
    """Part of the error level that each number of seeds spends."""
    shares: dict[int, float] = {}
    spent = 0.0
    for seeds in range(1, max_seeds + 1):
        part = (seeds / max_seeds) ** _SPENDING_POWER
        # Only where the strictest step of Holm can be reached; what is left goes to the next look.
        if smallest_p(columns * seeds) * comparisons <= ALPHA * (part - spent):
            shares[seeds] = part - spent
            spent = part
    return shares


def decisions(filled: FilledTable, design: SeedDesign) -> tuple[Decision, ...]:
    """Where every comparison of the design stands: a function of the rows and the design alone.

    The looks are taken one after the other, as they were while the seeds ran: a comparison that
    has stopped is not looked at again, even where its cells got more seeds for others.
    """
    table = design.tables.get(filled.table.name)
    if table is None:
        return ()
    pairs = {name: pair for name, pair in row_pairs(filled).items() if name in table.comparisons}
    reached = _Looks(table, design, pairs)
    for number, look in enumerate(table.looks, start=1):
        if not reached.take(number, look):
            break
    return tuple(reached.decision(pair) for pair in pairs.values())


class _Looks:
    """The looks taken so far at one table."""

    def __init__(self, table: TableDesign, design: SeedDesign, pairs: dict[str, RowPair]) -> None:
        self._table = table
        self._design = design
        self._open = dict(pairs)
        self._p = dict.fromkeys(table.comparisons, 1.0)  # also of one that the table has no more
        self._state: dict[str, Literal["futile", "ended"]] = {}
        self._last: dict[str, tuple[int, int, tuple[tuple[float, ...], ...]]] = {}

    def take(self, number: int, look: Look) -> bool:
        """Take a look at all open comparisons; False while one of them lacks a result."""
        seeds = self._design.seeds[: look.seeds]
        values = {name: pair.differences(seeds) for name, pair in self._open.items()}
        if not values or any(groups is None for groups in values.values()):
            return False
        for name, groups in values.items():
            assert groups is not None
            p = sign_flip([value for group in groups for value in group]).p
            if look.share:
                self._p[name] = min(self._p[name], p / look.share)
            self._last[name] = number, look.seeds, groups
            if number == len(self._table.looks):
                self._state[name] = "ended"
            elif 2 * look.seeds >= len(self._design.seeds) and p > self._design.futile_p:
                self._state[name] = "futile"
        corrected = self._corrected()
        self._open = {
            name: pair
            for name, pair in self._open.items()
            if name not in self._state and corrected[name] > self._design.alpha
        }
        return True

    def decision(self, pair: RowPair) -> Decision:
        """Where a comparison stands after the last look."""
        look, seeds, groups = self._last.get(pair.name, (0, 0, ()))
        p_holm = self._corrected()[pair.name]
        is_settled = p_holm <= self._design.alpha
        return Decision(
            pair=pair,
            differences=groups,
            look=look,
            num_looks=len(self._table.looks),
            seeds=seeds,
            max_seeds=len(self._design.seeds),
            p=self._p[pair.name],
            p_holm=p_holm,
            rivals=len(self._table.comparisons),
            state="settled" if is_settled else self._state.get(pair.name, "open"),
        )

    def _corrected(self) -> dict[str, float]:
        return dict(zip(self._p, holm(list(self._p.values())), strict=True))


def wanted_seeds(made: Iterable[Decision], design: SeedDesign, table: str) -> dict[str, int]:
    """How many of the design's seeds the cells of one table need now, by their key without a seed.

    Cells of open comparisons need those of the next look, the others keep what they have.
    """
    wanted: dict[str, int] = {}
    looks = design.tables[table].looks
    for decision in made:
        seeds = looks[decision.look].seeds if decision.state == "open" else decision.seeds
        for group in decision.pair.groups:
            wanted[group] = max(wanted.get(group, 0), seeds)
    return wanted
