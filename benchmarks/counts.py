"""Kernels, messages and bytes of one training step on GPUs: `python -m benchmarks.counts`.

No GPU is needed: the step runs on tensors without data (torch's meta device) in a process group
without other members, and whatever would reach a device is counted. An operation that is neither a
view nor an allocation counts as one kernel, which is a lower bound. Settings: crop, batch (of each
rank), models and ranks (both separated by commas).
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.table import settings
from benchmarks.two_steps import Case, made_up, stepping
from trainer.distributed import Ranks
from trainer.state import new_state

ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "_unsafe_view")


@dataclass
class Counts:
    """What one rank asks of its device in a step.

    Attributes:
        operations: how often each operation launches a kernel, messages left out.
        messages: calls of collectives.
        message_bytes: handed to them by this rank.
    """

    operations: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    message_bytes: int = 0

    @property
    def kernels(self) -> int:
        """Kernels, those of NCCL left out."""
        return self.operations.total()


class Counting(TorchDispatchMode):
    """Fills `counts` with what reaches the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        aliases = [value.alias_info for value in function._schema.returns]
        if function.namespace == "c10d":
            # The second argument of every collective is what this rank hands over.
            sent = [value for value in tree_leaves(args[1]) if isinstance(value, Tensor)]
            self.counts.messages += 1
            self.counts.message_bytes += sum(value.nbytes for value in sent)
        elif name not in ALLOCATIONS and not any(a and not a.is_write for a in aliases):
            self.counts.operations[name] += 1
        result = function(*args, **(kwargs or {}))
        # On a device the result lies as the image does; its form without data forgets that.
        if name == "convolution" and args[0].is_contiguous(memory_format=torch.channels_last):
            return result.to(memory_format=torch.channels_last)
        return result


def count(case: Case, world_size: int) -> Counts:
    """The second step of the first of some ranks, each of which has the batch of `case`.

    Uses the default process group, of which this process must have none yet.
    """
    ranks = Ranks(0, world_size, torch.device("meta"))
    whole = replace(case, batch=case.batch * world_size)
    with torch.device("meta"):  # so that no weights are drawn
        state = new_state(whole.config, case.classes, ranks, fresh=False)
    data = made_up(case, ranks, num_bits=state.networks["student"].num_channel_bits, seed=0)
    step = stepping(whole.config, ranks, state, lr=0.0)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        with meta_operations():
            step(*data)  # makes what is made once
            with Counting() as counting:
                step(*data)
    finally:
        dist.destroy_process_group()
    return counting.counts


@contextmanager
def meta_operations() -> Iterator[None]:
    """Shapes of the results of CUDA operations for which torch has no form without data."""

    def like_channels(x: Tensor, num: int) -> tuple[Tensor, ...]:
        dtype = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
        return tuple(x.new_empty(x.shape[1], dtype=dtype) for _ in range(num))

    def gathered(outputs: list[Tensor], inputs: list[Tensor], group: Any, *_: Any) -> Any:
        on_host = [[torch.empty_like(x, device="cpu") for x in side] for side in (outputs, inputs)]
        return torch.ops.c10d.allgather_into_tensor_coalesced_(*on_host, group)

    forms = {
        "aten::_fused_sgd_": lambda *_, **__: None,
        "aten::batch_norm_stats": lambda x, _: like_channels(x, 2),
        "aten::batch_norm_gather_stats_with_counts": lambda x, *_: like_channels(x, 2),
        "aten::batch_norm_elemt": lambda x, *_: torch.empty_like(x),
        "aten::batch_norm_backward_reduce": lambda grad, *_: like_channels(grad, 4),
        "aten::batch_norm_backward_elemt": lambda grad, *_: torch.empty_like(grad),
        "c10d::allgather_into_tensor_coalesced_": gathered,
    }
    library = torch.library._scoped_library
    with library("aten", "IMPL") as aten, library("c10d", "IMPL") as c10d:
        for name, form in forms.items():
            (c10d if name.startswith("c10d") else aten).impl(name, form, "Meta")
        yield


def main(words: list[str]) -> None:
    """Print the table."""
    defaults = {"crop": "321", "batch": "2", "models": "resnet50,resnet101", "ranks": "1,2,4"}
    given = settings(words, defaults)
    crop, batch = int(given["crop"]), int(given["batch"])
    print(f"One step of UniMatch with KL, {batch}+{batch} images of {crop} on each rank, fp32\n")
    print("| network | ranks | kernels | ratio | messages | MB sent |\n|---|---|---|---|---|---|")
    for model in given["models"].split(","):
        alone = 0
        for world_size in map(int, given["ranks"].split(",")):
            counts = count(Case(model=model, crop=crop, batch=batch, classes=21), world_size)
            alone = alone or counts.kernels
            print(
                f"| {model} | {world_size} | {counts.kernels} | {counts.kernels / alone:.2f} | "
                f"{counts.messages} | {counts.message_bytes / 1e6:.1f} |"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
