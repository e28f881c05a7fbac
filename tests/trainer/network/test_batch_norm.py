"""Batch norm over ranks equals batch norm over the whole batch."""

import pytest
import torch
from torch import nn

from tests.support import batch_norm_operations
from tests.support.process_groups import run_ranks
from trainer.distributed import Ranks
from trainer.network.batch_norm import RankOrderedBatchNorm, set_ranks


def whole_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 2.0 + torch.randn(7, 3, 4, 5, generator=generator, dtype=torch.float64)
    return x, torch.randn(7, 3, 4, 5, generator=generator, dtype=torch.float64)


def layer(kind: type[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    made = kind(3).double()
    with torch.no_grad():
        made.weight.copy_(torch.tensor([0.5, 1.5, -1.0]))
        made.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    return made


def one_rank(device: str) -> dict[str, torch.Tensor]:
    """Forward and backward of this rank's uneven part of the batch, as on a kind of device."""
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    ranks = Ranks(rank, size, torch.device(device))
    part = slice(rank * 7 // size, (rank + 1) * 7 // size)
    x, weight = whole_batch()
    mine = x[part].clone().requires_grad_(True)
    norm = layer(RankOrderedBatchNorm)
    set_ranks(norm, ranks)
    with batch_norm_operations.on_cpu():
        y = norm._over_ranks(mine, ranks) if size == 1 and device == "cuda" else norm(mine)
        (y * weight[part]).sum().backward()
    ranks.sum_gradients(norm.parameters())
    assert mine.grad is not None
    assert norm.weight.grad is not None
    gradients = {"x": mine.grad, "slope": norm.weight.grad, "shift": norm.bias.grad}
    return {"y": y.detach(), **gradients, **norm.state_dict()}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_uneven_ranks_together_equal_the_whole_batch(world_size: int, device: str) -> None:
    x, weight = whole_batch()
    x.requires_grad_(True)
    plain = layer(nn.BatchNorm2d)
    y = plain(x)
    (y * weight).sum().backward()

    rows = run_ranks(one_rank, world_size, device)

    close = {"atol": 1e-12, "rtol": 0}
    torch.testing.assert_close(torch.cat([row["y"] for row in rows]), y.detach(), **close)
    torch.testing.assert_close(torch.cat([row["x"] for row in rows]), x.grad, **close)
    for row in rows:
        torch.testing.assert_close(row["slope"], plain.weight.grad, **close)
        torch.testing.assert_close(row["shift"], plain.bias.grad, **close)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(row[name], plain.state_dict()[name], **close)


def test_one_rank_is_plain_batch_norm() -> None:
    x, _ = whole_batch()
    norm = layer(RankOrderedBatchNorm)
    set_ranks(norm, Ranks(0, 1, torch.device("cpu")))

    assert torch.equal(norm(x), layer(nn.BatchNorm2d)(x))


def gradient_check() -> bool:
    ranks = Ranks(torch.distributed.get_rank(), 2, torch.device("cpu"))
    norm = layer(RankOrderedBatchNorm)
    set_ranks(norm, ranks)
    x = whole_batch()[0][:2, :, :2, :2].clone().requires_grad_(True)
    fixed = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view_as(x)
    (norm(x) * fixed).sum().backward()
    assert x.grad is not None
    step, worst = 1e-6, 0.0
    for index in range(0, x.numel(), 5):  # both ranks move the same pixel of their own half
        sums = []
        for sign in (1.0, -1.0):
            moved = x.detach().clone()
            moved.view(-1)[index] += sign * step * (ranks.rank == 0)
            sums.append(ranks.sum((norm(moved) * fixed).sum().detach()))
        slope = (sums[0] - sums[1]) / (2 * step)
        if ranks.rank == 0:
            worst = max(worst, abs(float(slope - x.grad.view(-1)[index])))
    return worst < 1e-7


def test_the_gradient_is_that_of_the_sum_over_ranks() -> None:
    assert all(run_ranks(gradient_check, 2))


def half_batch() -> torch.Tensor:
    """Activations as autocast hands them over: (4, 3, 21, 21), 1,764 values a channel."""
    generator = torch.Generator().manual_seed(1)
    return (3.0 + torch.randn(4, 3, 21, 21, generator=generator)).bfloat16()


def half_rank(device: str) -> dict[str, torch.Tensor]:
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    ranks = Ranks(rank, size, torch.device(device))
    norm = RankOrderedBatchNorm(3)
    set_ranks(norm, ranks)
    mine = half_batch()[rank * 4 // size : (rank + 1) * 4 // size].requires_grad_(True)
    with batch_norm_operations.on_cpu():
        y = norm(mine)
        y.float().square().sum().backward()
    assert mine.grad is not None
    return {"y": y.detach(), "x": mine.grad, **norm.state_dict()}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_statistics_of_half_precision_activations_are_float32(world_size: int, device: str) -> None:
    x = half_batch().requires_grad_(True)
    plain = nn.BatchNorm2d(3)
    y = plain(x)
    y.float().square().sum().backward()
    assert x.grad is not None

    rows = run_ranks(half_rank, world_size, device)

    for row in rows:
        assert row["running_mean"].dtype == torch.float32
        for name in ("running_mean", "running_var"):  # bfloat16 would be 4e-3 off
            torch.testing.assert_close(row[name], plain.state_dict()[name], atol=1e-6, rtol=1e-5)
    together = torch.cat([row["y"] for row in rows])
    assert together.dtype == torch.bfloat16
    torch.testing.assert_close(together, y.detach(), atol=2e-2, rtol=1e-2)  # one unit of bfloat16
    gradient = torch.cat([row["x"] for row in rows])
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient, x.grad, atol=3e-2, rtol=2e-2)


def counted() -> list[int]:
    """Batches that each of three layers has seen after two training forwards and another."""
    network = nn.Sequential(*(layer(RankOrderedBatchNorm) for _ in range(3)))
    rank = torch.distributed.get_rank()
    set_ranks(network, Ranks(rank, 2, torch.device("cuda")))
    with batch_norm_operations.on_cpu():
        network(whole_batch()[0])
        network(whole_batch()[0])
        network.eval()(whole_batch()[0])
    return [int(value) for name, value in network.named_buffers() if "batches" in name]


def test_on_cuda_the_first_layer_counts_the_batches_of_all() -> None:
    assert run_ranks(counted, 2) == [[2, 2, 2]] * 2
