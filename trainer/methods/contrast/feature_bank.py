"""Banks: queues of the rows of features that were pushed last, as tensors of a method's memory.

A bank has several queues, one of each class, or a single one; the oldest rows of a queue make room
for new ones. Rows move by sorting, index_select and where alone: nothing is added in another order
when a step is repeated, and nothing waits for the device.
Legend: Q queues, P rows of features of a step over all ranks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from trainer.distributed import Ranks


def block_of(batch: int, ranks: Ranks) -> int:
    """Images of the largest rank; image i of rank r is at r times this, plus i, of those of all."""
    return -(-batch // ranks.world_size)


def gather_images(values: Tensor, batch: int, ranks: Ranks, *, fill: float = 0.0) -> Tensor:
    """What belongs to the images of all ranks, (images, ...), in the order of the global batch.

    Ranks may hold different numbers of images, and gathering needs one shape, so smaller ones are
    filled up. A mask that is gathered the same way is False there, and so the rows that it chooses,
    and their order, do not depend on the number of ranks.

    Args:
        values: of this rank's images, (B, ...).
        batch: images per step over all ranks.
        ranks: those that share the batch.
        fill: value of images that there are not.
    """
    if ranks.world_size == 1:
        return values
    missing = block_of(batch, ranks) - len(values)
    padding = (0, 0) * (values.dim() - 1) + (0, missing)
    return ranks.gather(functional.pad(values, padding, value=fill)).flatten(0, 1)


@dataclass(frozen=True)
class NewRows:
    """Rows on their way into a bank.

    Attributes:
        rows: by name, (P, ...) each.
        order: of each queue the places of its rows among the P, then P itself; int64 (Q, P).
        counts: rows for each queue, int64 (Q,).
    """

    rows: Mapping[str, Tensor]
    order: Tensor
    counts: Tensor

    @classmethod
    def of(cls, rows: Mapping[str, Tensor], chosen: Tensor) -> "NewRows":
        """Rows (P, ...), equal on all ranks; `chosen` is True where a queue takes a row, (Q, P)."""
        return cls(rows, places_of(chosen), chosen.sum(1))


def places_of(chosen: Tensor) -> Tensor:
    """The places of True in each row of (Q, P) in order, then P; int64 (Q, P)."""
    places = torch.arange(chosen.shape[1], device=chosen.device)
    return torch.where(chosen, places, chosen.shape[1]).sort(1).values


@dataclass(frozen=True)
class FeatureBank:
    """Queues in the memory of a method, all in one tensor, one behind the other.

    Row number n of a queue, counted from 0 over the whole run, lies in slot n modulo its capacity.

    Attributes:
        name: the memory has `name.pushed` and `name.FIELD`.
        capacities: rows that each queue holds at most.
    """

    name: str
    capacities: tuple[int, ...]

    def memory(self, **fields: Tensor) -> dict[str, Tensor]:
        """An empty bank for `Method.memory`; each field is given as one row, of its shape and type.

        A field beside the features may hold their labels.
        """
        total = sum(self.capacities)
        rows = {f"{self.name}.{k}": row.new_zeros(total, *row.shape) for k, row in fields.items()}
        return {f"{self.name}.pushed": torch.zeros(len(self.capacities), dtype=torch.int64), **rows}

    def filled(self, memory: Mapping[str, Tensor], new: NewRows | None = None) -> Tensor:
        """Rows in each queue, int64 (Q,), after a push of `new`: those in its first slots."""
        pushed = memory[f"{self.name}.pushed"]
        total = pushed if new is None else pushed + new.counts
        return total.minimum(_limits(self.capacities, pushed.device)[1])

    def push(self, memory: Mapping[str, Tensor], new: NewRows) -> None:
        """Put new rows into their queues, in place; of too many the last ones stay.

        Rows and choice must be equal on all ranks, as `gather_images` makes them.
        """
        pushed = memory[f"{self.name}.pushed"]
        start = 0
        for queue, capacity in enumerate(self.capacities):
            slots = torch.arange(capacity, device=pushed.device)
            before, last = pushed[queue], pushed[queue] + new.counts[queue] - 1
            # The highest row number of each slot; it is negative where the slot is still empty.
            number = last - (last - slots) % capacity
            place = _taken(new.order[queue], number - before)
            for field, rows in new.rows.items():
                kept = memory[f"{self.name}.{field}"][start : start + capacity]
                is_new = (number >= before).view(-1, *(1,) * (kept.dim() - 1))
                kept.copy_(torch.where(is_new, _taken(rows, place).to(kept.dtype), kept))
            start += capacity
        pushed.add_(new.counts)

    def read(
        self, memory: Mapping[str, Tensor], field: str, new: NewRows, *, queue: Tensor, age: Tensor
    ) -> Tensor:
        """Rows as they will be after a push of `new`, which has not happened yet.

        Args:
            memory: of the method, before the push.
            field: name of the rows.
            new: what is pushed after the step.
            queue: int64, of any shape (...).
            age: places in the queues, 0 for the oldest row, below `filled(memory, new)`; (...).

        Returns:
            (..., *shape of a row); zeros or other rows where the queue is empty.
        """
        pushed, kept = memory[f"{self.name}.pushed"], memory[f"{self.name}.{field}"]
        starts, capacities = _limits(self.capacities, pushed.device)
        oldest = pushed + new.counts - self.filled(memory, new)
        number, before = _taken(oldest, queue) + age, _taken(pushed, queue)
        num_rows = new.order.shape[1]
        ordinal = (number - before).clamp(0, num_rows - 1)
        place = _taken(new.order.flatten(), queue * num_rows + ordinal)
        slot = _taken(starts, queue) + number % _taken(capacities, queue)
        is_new = (number >= before).view(*number.shape, *(1,) * (kept.dim() - 1))
        fresh = _taken(new.rows[field], place).to(kept.dtype)
        return torch.where(is_new, fresh, _taken(kept, slot))


def _taken(rows: Tensor, places: Tensor) -> Tensor:
    """Rows at some places, (..., *shape of a row); places beyond an end take the row there."""
    flat = places.flatten().clamp(0, len(rows) - 1)
    return rows.index_select(0, flat).view(*places.shape, *rows.shape[1:])


@lru_cache(maxsize=64)
def _limits(capacities: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """First slots and capacities of the queues; cached, since a copy makes the host wait."""
    sizes = torch.tensor(capacities)
    return (sizes.cumsum(0) - sizes).to(device), sizes.to(device)
