"""The comparison of two sets of results on the terminal, and as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from orchestrator.statistics.grid_diff import Difference, GridDiff
from orchestrator.statistics.significance import ALPHA, smallest_p
from orchestrator.statistics.text import p_text
from orchestrator.tables.filled import Epoch
from orchestrator.tables.text import signed

_DECIMALS = 2
_NAMED = 5  # changes of one cell, or cells of one list, that the terminal shows
_HEADS = ("here", "there", "difference", "95 % interval", "p", "n")


def diff_text(diff: GridDiff, *, here: str, there: str, epoch: Epoch) -> Group:
    """The comparison for `rich.console.Console.print`.

    Args:
        diff: what was compared.
        here: what one side is, such as root=outputs.
        there: what the other side is.
        epoch: whose mIoU was compared.
    """
    shared = _shared(diff.differences)
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("cell", overflow="fold")
    for head in _HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("changed", overflow="fold")
    for difference in diff.differences:
        changed = [line for line in difference.changed if line not in shared]
        words = (difference.group, *_numbers(difference), _changed(difference, changed))
        table.add_row(*map(Text, words), style="bold" if difference.is_significant else "")
    title = f"mIoU (%) at the {epoch} epoch: here is {here}, there is {there}."
    lines = [f"Changed in every cell: {line}" for line in shared]
    lines += [_overall(diff), *_lists(diff)]
    return Group(Text(title, "bold"), table, *(Text(line, "dim") for line in lines if line))


def diff_json(diff: GridDiff, *, grid: str, here: str, there: str, epoch: Epoch) -> str:
    """The comparison as JSON, see docs/results.md; arguments as of `diff_text`."""
    facts = {
        "grid": grid,
        "here": here,
        "there": there,
        "epoch": epoch,
        "differences": [_plain(difference) for difference in diff.differences],
        "overall": None if diff.overall is None else asdict(diff.overall),
        "only_here": diff.only_here,
        "only_there": diff.only_there,
        "left_out": diff.left_out,
    }
    return json.dumps(facts, indent=1)


def nothing_text(diff: GridDiff, *, here: str, there: str) -> str:
    """Why no cell of a comparison has results to compare, in one sentence, and what to do."""
    sides = {f"here, {here}": diff.only_here, f"there, {there}": diff.only_there}
    have = "; ".join(f"{side}: {_some(keys)}" for side, keys in sides.items())
    out = "; left out for other settings or data than their other seeds: " + _some(diff.left_out)
    return (
        "Nothing can be compared, as no cell has a result of the same seed on both sides (only "
        f"{have}{out if diff.left_out else ''}). Launch what one side lacks, or name other results "
        "by root= and with=."
    )


def _plain(difference: Difference) -> dict[str, object]:
    return {
        "cell": difference.group,
        "here": difference.here,
        "there": difference.there,
        "difference": difference.mean,
        "interval": difference.interval,
        "p": difference.p,
        "p_holm": difference.p_holm,
        "n": len(difference.by_seed),
        "by_seed": difference.by_seed,
        "has_same_bits": difference.has_same_bits,
        "has_same_data": difference.has_same_data,
        "changed": difference.changed,
    }


def _shared(differences: Sequence[Difference]) -> list[str]:
    """Changes that every cell has; none for a single cell, whose line has room for them."""
    if len(differences) < 2:
        return []
    first, *others = (difference.changed for difference in differences)
    return [line for line in first if all(line in lines for lines in others)]


def _numbers(difference: Difference) -> list[str]:
    return [
        f"{difference.here:.{_DECIMALS}f}",
        f"{difference.there:.{_DECIMALS}f}",
        signed(difference.mean, _DECIMALS),
        _interval(difference.interval),
        p_text(difference.p),
        str(len(difference.by_seed)),
    ]


def _interval(interval: tuple[float, float] | None) -> str:
    ends = [signed(end, _DECIMALS) for end in interval or ()]
    return f"[{', '.join(ends)}]" if ends else ""


def _changed(difference: Difference, changed: Sequence[str]) -> str:
    more = len(changed) - _NAMED
    lines = [*changed[:_NAMED], *([f"and {more} more"] if more > 0 else [])]
    return "; ".join([*(["same bits"] if difference.has_same_bits else []), *lines])


def _overall(diff: GridDiff) -> str:
    """What holds for all cells, in a few sentences."""
    cells, overall = diff.differences, diff.overall
    significant = sum(difference.is_significant for difference in cells)
    same = sum(difference.has_same_bits is True for difference in cells)
    mean = ""
    if overall is not None:
        interval = f" {_interval(overall.interval)}" if overall.interval else ""
        mean = (
            f"Mean over all pairs on the same data: {signed(overall.mean, _DECIMALS)}{interval}, "
            f"p = {p_text(overall.p)}, n = {overall.n}. "
        )
    few = ""
    smallest = min(1.0, len(cells) * min(smallest_p(len(cell.by_seed)) for cell in cells))
    if smallest > ALPHA:
        few = f" So few seeds cannot give a cell a p below {p_text(smallest)} after Holm."
    return (
        f"{mean}Cells compared: {len(cells)}; with a significant difference at 5 % after Holm "
        f"(bold): {significant}; with the same bits: {same}. Results are paired by seed; the test "
        f"is the exact sign-flip test, two-sided.{few}"
    )


def _lists(diff: GridDiff) -> list[str]:
    """Which cells are on one side only, or left out; the terminal names the first of them."""
    lists = {
        "Only here": diff.only_here,
        "Only there": diff.only_there,
        "Left out, as their settings or data are not those of the other seeds": diff.left_out,
    }
    all_of_them = " (--json has all)"
    return [
        f"{what}: {_some(keys)}{all_of_them if len(keys) > _NAMED else ''}"
        for what, keys in lists.items()
        if keys
    ]


def _some(keys: Sequence[str]) -> str:
    """The first of some keys."""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"{', '.join(keys[:_NAMED])}{more}" if keys else "none"
