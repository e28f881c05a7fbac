"""InfoNCE in chunks: as the dense formula, in memory that does not grow with the negatives."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.methods.contrast.info_nce import info_nce

TEMPERATURE = 0.1
CLASSES = 3


def drawn(num_negatives: int, num_anchors: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Anchors, positives, negatives of length one; which of these count."""
    generator = torch.Generator().manual_seed(0)
    shape = (num_anchors + num_anchors + num_negatives, 5)
    rows = normalize(torch.randn(shape, generator=generator, dtype=torch.float64))
    classes = torch.randint(0, CLASSES, (len(rows),), generator=generator)
    anchors, positives, negatives = rows.split([num_anchors, num_anchors, num_negatives])
    return anchors, positives, negatives, classes[:num_anchors, None] != classes[-num_negatives:]


def dense(anchors: Tensor, positives: Tensor, negatives: Tensor, counts: Tensor) -> Tensor:
    losses = []
    for anchor, positive, row in zip(anchors, positives, counts, strict=True):
        own = (anchor @ positive / TEMPERATURE).exp()
        others = (negatives[row] @ anchor / TEMPERATURE).exp()
        losses.append(-(own / (own + others.sum())).log())
    return torch.stack(losses)


def chunked(anchors: Tensor, positives: Tensor, negatives: Tensor, counts: Tensor) -> Tensor:
    return info_nce(
        anchors,
        positives,
        negatives,
        is_negative=lambda part: counts[:, part],
        temperature=TEMPERATURE,
        most=7 * 4,
    )


@pytest.mark.usefixtures("double_precision")
def test_chunks_give_values_and_gradients_of_the_dense_formula() -> None:
    results = []
    for way in (dense, chunked):
        anchors, positives, negatives, counts = drawn(30)  # seven chunks of four, one of two
        counts[3] = False
        anchors.requires_grad_()
        losses = way(anchors, positives, negatives, counts)
        weights = torch.arange(1.0, 8.0)
        (gradient,) = torch.autograd.grad((losses * weights).sum(), anchors)
        results.append((losses.detach(), gradient))

    (expected, slopes), (losses, gradient) = results
    assert (losses - expected).abs().max() <= 1e-12
    assert (gradient - slopes).abs().max() <= 1e-12
    assert losses[3] == 0.0
    assert losses[0] > 1.0


@pytest.mark.parametrize("temperature", [0.03, 0.07])
def test_the_furthest_positive_and_the_nearest_negatives_stay_finite(temperature: float) -> None:
    anchors = torch.eye(4)[:1].requires_grad_()

    losses = info_nce(
        anchors,
        -anchors.detach(),
        anchors.detach().repeat(100_000, 1),
        is_negative=lambda part: torch.ones(1, 100_000, dtype=torch.bool)[:, part],
        temperature=temperature,
    )
    losses.sum().backward()

    expected = 2 / temperature + torch.tensor(100_000.0).log()
    torch.testing.assert_close(losses.detach(), expected[None], rtol=1e-4, atol=0.0)
    assert anchors.grad is not None
    assert anchors.grad.isfinite().all()


class Largest(TorchDispatchMode):
    """Notes the largest matrix that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not function.is_view:
            self.numel = max(self.numel, result.numel())
        return result


def test_memory_does_not_grow_with_the_negatives() -> None:
    kept, largest = [], []
    for num_negatives in (40, 4000):
        anchors, positives, negatives, counts = drawn(num_negatives)
        negatives = negatives.float()
        saved: dict[int, int] = {}
        with Largest() as mode, torch.autograd.graph.saved_tensors_hooks(keeping(saved), kept_as):
            loss = chunked(anchors.requires_grad_(), positives, negatives, counts).sum()
        with mode:
            loss.backward()
        kept.append(sum(saved.values()))
        largest.append(mode.numel)

    assert kept[0] == kept[1] > 0
    assert largest == [7 * 5] * 2  # the anchors; a chunk of similarities has 28


def keeping(saved: dict[int, int]) -> Callable[[Tensor], Tensor]:
    """Notes the bytes of what is kept for the backward pass, each piece of memory once."""

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    return pack


def kept_as(tensor: Tensor) -> Tensor:
    return tensor
