"""Which row of a cell counts: one rule for plan, status, tables, reports, exports and queries.

It is the newest done row of today's configuration, first weights, images and lists; where there is
none the newest done row, which is shown as drifted; where none is done the newest failed one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.results.row import Row

_UNKNOWN_DATA = "lists:"  # so began the fingerprint of data whose files nothing had identified


# Settings, images and masks, lists, first weights.
Likeness = tuple[str | None, str, str | None, str | None]


@dataclass(frozen=True)
class Today:
    """What a row must have to be a result of a cell as it stands today.

    Attributes:
        fingerprint: of the configuration.
        data: fingerprint of the images and masks; empty where they are not on this machine.
        split: checksum of the lists; empty likewise.
        weights: sha256 of the file it begins with; empty likewise, and where they are drawn.
        is_planned: whether the grid has the cell; False of a seed that only old rows have.
    """

    fingerprint: str
    data: str = ""
    split: str = ""
    weights: str = ""
    is_planned: bool = True

    def is_of(self, row: Row) -> bool:
        """Whether a row agrees; what one of the two does not know is no difference."""
        return (
            row.fingerprint == self.fingerprint
            and is_same(data_of(row), self.data)
            and is_same(row.split_checksum, self.split)
            and is_same(row.pretrained_sha256, self.weights)
        )


def counted(rows: Iterable[Row], today: Mapping[str, Today]) -> dict[str, Row]:
    """The one row of each cell that counts, by key.

    Args:
        rows: in any order.
        today: by key; of a cell that is not in it every row is of today.
    """
    chosen: dict[str, Row] = {}
    for row in rows:
        old = chosen.setdefault(row.key, row)
        if old is not row and _rank(row, today) >= _rank(old, today):
            chosen[row.key] = row
    return chosen


def is_of_today(row: Row, today: Mapping[str, Today]) -> bool:
    """Whether a row is of what it would be of today, as far as that is known."""
    return row.key not in today or today[row.key].is_of(row)


def is_comparable(one: Row, other: Row) -> bool:
    """Whether two rows are of the same images, masks, lists and first weights, as far as is known.

    Backbones of different names begin with different weights by design.
    """
    same_split = is_same(one.split_checksum, other.split_checksum)
    same_weights = one.backbone != other.backbone or has_same_weights(one, other)
    return same_split and same_weights and is_same(data_of(one), data_of(other))


def has_same_weights(one: Row, other: Row) -> bool:
    """Whether two rows began with the same file of weights, as far as that is known."""
    return is_same(one.pretrained_sha256, other.pretrained_sha256)


def differences(one: Row, other: Row) -> tuple[str, ...]:
    """In what the rows of two seeds of a cell differ; empty where they may be averaged."""
    words = []
    if one.settings_sha256 != other.settings_sha256:
        words.append("another configuration")
    if not is_same(data_of(one), data_of(other)):
        words.append("other images or masks")
    if not is_same(one.split_checksum, other.split_checksum):
        words.append("other split lists")
    if not has_same_weights(one, other):
        words.append("other first weights")
    return tuple(words)


def likeness(row: Row) -> Likeness:
    """All that `differences` looks at."""
    return row.settings_sha256, data_of(row), row.split_checksum, row.pretrained_sha256


def is_same(one: str | None, other: str | None) -> bool:
    """Whether two fingerprints are equal, or one is not known."""
    return not one or not other or one == other


def data_of(row: Row) -> str:
    """Fingerprint of the images and masks of a row; empty where nothing identified them."""
    data = row.data_fingerprint or ""
    return "" if data.startswith(_UNKNOWN_DATA) else data


def _rank(row: Row, today: Mapping[str, Today]) -> tuple[bool, bool, int]:
    return row.status == "done", is_of_today(row, today), row.attempt
