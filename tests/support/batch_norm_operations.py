"""What the CUDA kernels under torch's SyncBatchNorm compute, written out for a CPU.

torch has these operations for CUDA alone. Each is stated here from its signature and from what
torch/nn/modules/_functions.py passes to it, so that a swapped argument or a wrong denominator in
our use of them gives another gradient on a CPU too.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

AXES = (0, 2, 3)


@contextmanager
def on_cpu() -> Iterator[None]:
    """Let torch find them for tensors on a CPU."""
    operations = {
        "batch_norm_stats": stats,
        "batch_norm_gather_stats_with_counts": gather_stats,
        "batch_norm_elemt": elementwise,
        "batch_norm_backward_reduce": backward_reduce,
        "batch_norm_backward_elemt": backward_elementwise,
    }
    with torch.library._scoped_library("aten", "IMPL") as library:
        for name, operation in operations.items():
            library.impl(name, operation, "CPU")
        yield


def stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) of each channel."""
    variance, mean = torch.var_mean(_precise(x), AXES, correction=0)
    return mean, (variance + eps).rsqrt()


def gather_stats(
    x: Tensor,
    means: Tensor,
    inverses: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    """`stats` of all rows, (world_size, C), together; moves the running statistics."""
    assert means.shape == inverses.shape == (len(counts), x.shape[1])
    assert counts.dtype == running_mean.dtype
    total = counts.sum()
    shares = (counts / total)[:, None]
    mean = (means * shares).sum(0)
    second = inverses.pow(-2) - eps + means.square()  # E[x^2] of each rank
    variance = (second * shares).sum(0) - mean.square()
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(variance * total / (total - 1), momentum)
    return mean, (variance + eps).rsqrt()


def elementwise(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, eps: float
) -> Tensor:
    """The normalised image."""
    normal = (_precise(x) - _maps(mean)) * _maps(inverse)
    return (normal * _maps(weight) + _maps(bias)).to(x.dtype)


def backward_reduce(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor,
    input_g: bool,
    weight_g: bool,
    bias_g: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of grad and of grad (x - mean); gradients of weight and bias."""
    sum_grad = _precise(grad).sum(AXES)
    sum_product = (_precise(grad) * (_precise(x) - _maps(mean))).sum(AXES)
    return sum_grad, sum_product, (sum_product * inverse).to(weight.dtype), sum_grad.clone()


def backward_elementwise(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor,
    sum_grad: Tensor,
    sum_product: Tensor,
    counts: Tensor,
) -> Tensor:
    """The gradient of the image; `counts` are those of all ranks."""
    assert counts.dtype == torch.int32
    total = counts.sum()
    slope = _maps(inverse.square() * sum_product / total)
    moved = _precise(grad) - _maps(sum_grad / total) - (_precise(x) - _maps(mean)) * slope
    return (moved * _maps(weight * inverse)).to(grad.dtype)


def _precise(x: Tensor) -> Tensor:
    """In the type in which CUDA computes."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _maps(values: Tensor) -> Tensor:
    return values[:, None, None]
