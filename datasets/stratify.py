"""Choosing labelled images so that rare classes get their share (Sechidis et al. 2011)."""

from collections import Counter
from collections.abc import Sequence

from datasets.catalog import IGNORED
from datasets.config import DataConfig
from datasets.location import data_root, spec_of


def stratified(config: DataConfig, order: Sequence[str], count: int) -> list[str]:
    """So many of the ids that every class is in its share of them, as far as that can be.

    The rarest class that still lacks images goes first; its images are taken in the given order.

    Args:
        config: dataset and root; every mask is read.
        order: ids, in the order in which they are preferred.
        count: how many to choose.
    """
    classes = {name: _classes(config, name) for name in order}
    total = Counter(label for found in classes.values() for label in found)
    # Shares are rounded, but a class that is there at all shall be there once.
    lacking = {label: max(1, round(number * count / len(order))) for label, number in total.items()}
    chosen: dict[str, None] = {}
    for label in sorted(total, key=lambda label: (total[label], label)):
        for name in order:
            is_wanted = lacking[label] > 0 and label in classes[name] and name not in chosen
            if is_wanted and len(chosen) < count:
                chosen[name] = None
                for shown in classes[name]:
                    lacking[shown] -= 1
    rest = [name for name in order if name not in chosen]
    return [*chosen, *rest[: count - len(chosen)]]


def _classes(config: DataConfig, name: str) -> frozenset[int]:
    """Classes that an image shows."""
    from datasets.tree import tree_of  # Pillow: only those who stratify need it

    counts = tree_of(spec_of(config), data_root(config)).mask(name).histogram()
    return frozenset(label for label in range(IGNORED) if counts[label])
