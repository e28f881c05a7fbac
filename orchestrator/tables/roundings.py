"""Printed improvements that are not the difference of the printed scores.

A paper subtracts before it rounds, and prints both rounded: its improvement may then differ from
the difference of its printed scores by one in the last digit, and by no more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sweeps.table import Row, Table


@dataclass(frozen=True)
class Rounding:
    """One such place.

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
                    place = (block.label, row.label, heads[index])
                    yield Rounding(*place, printed, recomputed, gap < 1.51 * unit)


def note(table: Table) -> str:
    """One sentence about all of them; empty where there are none."""
    found = list(roundings(table))
    if not found:
        return ""
    places = "; ".join(
        f"{' '.join(filter(None, (r.block, r.column)))}: {r.printed:+.{table.decimals}f} printed, "
        f"{r.recomputed:+.{table.decimals}f} from the scores"
        for r in found
    )
    reason = "rounding after the subtraction explains it"
    if not all(r.is_explained for r in found):
        reason = "rounding alone does not explain all of it"
    return f"Improvements of the paper that differ from its printed scores ({reason}): {places}."


def _recomputed(table: Table, row: Row, rows: dict[str, Row]) -> list[float | None]:
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
