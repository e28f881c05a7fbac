"""Comparisons as sentences, Markdown and CSV."""

import csv
import io
from collections.abc import Iterable, Iterator

from datasets.wording import quantity
from orchestrator.statistics.compare import Comparison, comparisons
from orchestrator.statistics.sequential import Decision
from orchestrator.statistics.significance import pairs_needed
from orchestrator.tables.filled import FilledTable
from orchestrator.tables.text import markdown_text, signed

METHOD = (
    "Results are paired by split and seed. The test is the exact sign-flip test, two-sided, "
    "corrected after Holm for all rivals. From five pairs on, the 95 % bootstrap interval of the "
    "mean is given, for which seeds are resampled within each split, and so are columns that are "
    "replicates of one setting."
)
SEQUENTIAL_METHOD = (
    "Seeds run until settled. Results are paired by split and seed; the test is the exact "
    "sign-flip test, two-sided, at looks planned before the first seed. p is the least of the "
    "looks so far, each divided by its share of the error level, corrected after Holm for all "
    "comparisons of the table; means are those of the last look."
)
_HEAD = (
    "block",
    "method",
    "against",
    "column",
    "n",
    "mean",
    "low",
    "high",
    "p",
    "p_holm",
    "rivals",
)


def sentence(comparison: Comparison, decimals: int) -> str:
    """What one comparison says."""
    block = f" ({comparison.block})" if comparison.block else ""
    mean = signed(comparison.mean, decimals)
    text = f"{comparison.new} against {comparison.rival}{block}: {mean} over {pairs(comparison)}"
    if comparison.interval is not None:
        low, high = (signed(value, decimals) for value in comparison.interval)
        text += f", 95 % interval [{low}, {high}]"
    return f"{text}; {verdict(comparison)}"


def verdict(comparison: Comparison) -> str:
    """Whether the difference is significant, or how many seeds could make it so."""
    if comparison.decision is not None:
        return _decided_text(comparison, comparison.decision)
    if not comparison.is_reachable:
        return _unreachable(comparison)
    p = p_text(comparison.p_holm)
    p = f"p {p}" if p.startswith("<") else f"p = {p}"
    if comparison.rivals > 1:
        p += f" after Holm over {quantity(comparison.rivals, 'rival')}"
    if not comparison.is_exact:
        p += " (sampled)"
    if not comparison.is_significant:
        return f"not significant, {p}."
    return f"{'better' if comparison.mean > 0 else 'worse'}, {p}."


def pairs(comparison: Comparison) -> str:
    """How many pairs, of what."""
    if comparison.replicates:
        return f"n = {comparison.n} ({quantity(comparison.replicates, 'column')})"
    splits = len(comparison.groups)
    sizes = {len(group) for group in comparison.groups}
    seeds = str(sizes.pop()) if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
    words = [quantity(splits, "split"), f"{seeds} {'seed' if seeds == '1' else 'seeds'}"]
    return f"n = {comparison.n} ({' x '.join(words)})"


def p_text(p: float) -> str:
    """A p-value with two digits that count."""
    return "1" if p >= 0.995 else f"{p:.2g}" if p >= 1e-4 else "< 0.0001"


def sentences(filled: FilledTable) -> list[str]:
    """Every comparison of a table, all columns together."""
    return [sentence(comparison, filled.table.decimals) for comparison in comparisons(filled)]


def comparisons_markdown(filled: FilledTable) -> str:
    """The comparisons of a table as Markdown; says so where there are none."""
    lines = [f"- {markdown_text(text)}" for text in sentences(filled)]
    body = lines or [_why_none(filled)]
    title = markdown_text(filled.table.title)
    return "\n".join([f"**{title}: comparisons.** {method_of(filled)}", "", *body, ""])


def method_of(filled: FilledTable) -> str:
    """How the comparisons of a table are tested."""
    return METHOD if filled.design is None else SEQUENTIAL_METHOD


_ENDS = {
    "settled": "settled at look {look}",
    "futile": "stopped as futile at look {look}",
    "ended": "not settled at the last look",
    "open": "open after look {look} of {looks}",
}


def _decided_text(comparison: Comparison, decision: Decision) -> str:
    """What the last look said, and how many of the planned seeds it had."""
    p = p_text(comparison.p_holm)
    p = f"p {p}" if p.startswith("<") else f"p = {p}"
    word = "not significant"
    if decision.state == "settled":
        word = "better" if comparison.mean > 0 else "worse"
    over = (
        f" after Holm over {quantity(decision.rivals, 'comparison')}" if decision.rivals > 1 else ""
    )
    end = _ENDS[decision.state].format(look=decision.look, looks=decision.num_looks)
    return (
        f"{word}, {p}{over}; {decision.seeds} of {quantity(decision.max_seeds, 'planned seed')}; "
        f"{end}."
    )


def _why_none(filled: FilledTable) -> str:
    """What is missing for a comparison: runs, or a row that asks for one."""
    if any(row.row.kind in ("difference", "average") for row in filled.rows):
        return "Nothing can be compared yet: no two methods share a split and a seed."
    return "This table asks for no comparison; a row with `minus: [NEW, BASELINE]` does."


def comparisons_csv(filled: FilledTable) -> str:
    """The comparisons as CSV: all columns together, then each column for itself."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_HEAD)
    writer.writerows(_lines(comparisons(filled)))
    writer.writerows(_lines(comparisons(filled, by_column=True)))
    return out.getvalue()


def _lines(some: Iterable[Comparison]) -> Iterator[list[str | int | float]]:
    for c in some:
        low, high = c.interval or ("", "")
        numbers = [c.n, c.mean, low, high, c.p, c.p_holm, c.rivals]
        yield [c.block, c.new, c.rival, c.column, *numbers]


def _unreachable(comparison: Comparison) -> str:
    """Why nothing can be significant, and how many pairs could be."""
    equal, rivals = comparison.n - comparison.num_different, comparison.rivals
    pairs_text = quantity(comparison.n, "pair")
    but = f", {equal} of them without a difference," if equal else ""
    after = f" after Holm over {quantity(rivals, 'rival')}" if rivals > 1 else ""
    splits = len(comparison.groups)
    where = f" on each of these {quantity(splits, 'split')}" if splits > 1 else ""
    seeds = f": {quantity(comparison.seeds_needed, 'seed')}{where}"
    end = "." if comparison.replicates else f"{seeds}."
    if equal == comparison.n:
        return (
            f"{pairs_text} without any difference, so p = 1; a significant one takes at least "
            f"{pairs_needed(rivals)} pairs{end}"
        )
    show = "it shows" if comparison.n == 1 else "they show"
    return (
        f"{pairs_text}{but} cannot give a p below {p_text(comparison.smallest_p_holm)}{after}, "
        f"whatever {show}, so nothing can be called significant; "
        f"{pairs_needed(rivals)} pairs could{end}"
    )
