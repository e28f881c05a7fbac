"""A step that keeps less for its backward pass has the same bits."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support import batch_norm_operations
from tests.support.process_groups import run_ranks
from tests.support.tiny_config import tiny_config
from trainer.config.schema import Memory, ModelConfig
from trainer.determinism import digest
from trainer.distributed import Ranks
from trainer.network.batch_norm import set_ranks
from trainer.network.deeplab import DeepLabV3Plus
from trainer.network.recompute import BlockRunner
from trainer.run import train

KINDS = [
    (method, loss, precision)
    for method, loss in (("supervised_star", "none"), ("unimatch_star", "kl"))
    for precision in ("fp32", "bf16")
]


RUNGS = {1: tuple(Memory), 2: (Memory.full, Memory.recompute)}  # by number of ranks


def digests(data_root: Path, folder: Path) -> dict[tuple[str, ...], list[str | None]]:
    """Sha256 of weights and running statistics of every kind of run, one for each rung."""
    rungs = RUNGS[torch.distributed.get_world_size()]
    made: dict[tuple[str, ...], list[str | None]] = {}
    for method, loss, precision in KINDS:
        words = (f"method={method}", f"loss={loss}", f"optim.precision={precision}")
        for memory in rungs:
            config = tiny_config(data_root, *words, "optim.epochs=1", f"run.memory={memory.value}")
            summary = train(config, folder / f"{method}-{precision}-{memory.value}")
            made.setdefault((method, loss, precision), []).append(summary.weights_sha256)
    return made


@pytest.mark.long
@pytest.mark.parametrize("world_size", RUNGS)
def test_every_rung_ends_with_the_same_weights(
    drawn_root: Path, tmp_path: Path, world_size: int
) -> None:
    rows = run_ranks(digests, world_size, drawn_root, tmp_path)

    for row in rows:
        assert list(row) == KINDS
        for full, *others in row.values():
            assert full is not None
            assert others == [full] * (len(RUNGS[world_size]) - 1)
        assert len({full for full, *_ in row.values()}) == len(KINDS)


@dataclass(frozen=True)
class CountingRanks(Ranks):
    """Ranks that write down the shape of what they gather."""

    gathered: list[torch.Size] = field(default_factory=list)

    def gather(self, values: Tensor) -> Tensor:
        self.gathered.append(values.shape)
        return super().gather(values)


def gathered(memory: Memory) -> list[torch.Size]:
    """What one forward and backward gather on this rank."""
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    ranks = CountingRanks(rank, size, torch.device("cpu"))
    network = DeepLabV3Plus(ModelConfig(width=4, head_channels=8, low_level_channels=4), 3)
    network.backbone.run = BlockRunner(memory)
    set_ranks(network, ranks)
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    return ranks.gathered


def test_statistics_are_gathered_once_each_way() -> None:
    full = run_ranks(gathered, 2, Memory.full)[0]

    recomputed = run_ranks(gathered, 2, Memory.recompute)[0]

    assert recomputed == full
    num_layers = 3 + 4 * 4 + 6 + 1 + 2  # stem, bottlenecks with shortcut, pyramid, skip, decoder
    assert len(full) == 2 * num_layers


def on_cuda(memory: Memory) -> str:
    """Sha256 of gradients and running statistics after a forward and backward as on CUDA."""
    ranks = Ranks(torch.distributed.get_rank(), 2, torch.device("cuda"))
    torch.manual_seed(ranks.rank)
    network = DeepLabV3Plus(ModelConfig(width=4, head_channels=8, low_level_channels=4), 3)
    network.backbone.run = BlockRunner(memory)
    set_ranks(network, ranks)
    with batch_norm_operations.on_cpu():
        network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    gradients = {name: value.grad for name, value in network.named_parameters()}
    kept = {name: x for name, x in gradients.items() if x is not None}
    return digest({**kept, **dict(network.named_buffers())})


def test_the_kernels_of_cuda_are_recomputed_to_the_same_bits() -> None:
    full = run_ranks(on_cuda, 2, Memory.full)

    assert run_ranks(on_cuda, 2, Memory.recompute) == full
    assert full[0] != full[1]


def test_host_copies_keep_their_memory_format() -> None:
    maps = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    maps = maps.requires_grad_()
    seen: list[Tensor] = []

    def block(x: Tensor) -> Tensor:
        seen.append(x)
        return x.exp().sin()

    BlockRunner(Memory.offload)(block, maps).sum().backward()

    first, again = seen
    assert again.data_ptr() != first.data_ptr()
    assert again.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(again, first)


def test_without_gradient_nothing_is_kept_or_copied() -> None:
    x, seen = torch.randn(2, 3), []

    with torch.no_grad():
        BlockRunner(Memory.offload)(lambda value: seen.append(value) or value, x)

    assert seen[0] is x
