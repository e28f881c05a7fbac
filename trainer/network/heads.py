"""Outputs of a network beside its logits, for methods that ask for them in `NetworkSpec.heads`.

Their parameters have names and first weights of their own, so a network without them is the same.
Legend: B images, C classes, H x W pixels, h x w at stride 4, N channels inside the decoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from torch import Tensor, nn

from trainer.network.batch_norm import RankOrderedBatchNorm


class Head(Enum):
    """What a network gives beside its logits."""

    embedding = "embedding"  # a vector per pixel at stride 4, beside the classifier (U2PL)
    auxiliary = "auxiliary"  # logits of the third stage (AEL, U2PL)
    projection = "projection"  # a vector of length one per pixel at stride 8 (CAC)


@dataclass(frozen=True)
class Outputs:
    """All that a network gives for some images; None for a head that it lacks.

    Attributes:
        logits: (B, C, H, W).
        fused: features from which the classifier makes them, (B, N, h, w).
        embedding: (B, N, h, w).
        auxiliary: logits (B, C, H, W).
        projection: (B, N / 2, h / 2, w / 2), of length one along the channels.
        coarse: logits of the features that `projection` projects, (B, C, h / 2, w / 2).
    """

    logits: Tensor
    fused: Tensor
    embedding: Tensor | None = None
    auxiliary: Tensor | None = None
    projection: Tensor | None = None
    coarse: Tensor | None = None


def conv1(channels: int, out: int, *, bias: bool = False) -> list[nn.Module]:
    """A 1x1 convolution, batch norm and ReLU."""
    return [nn.Conv2d(channels, out, 1, bias=bias), RankOrderedBatchNorm(out), nn.ReLU(True)]


def conv3(channels: int, out: int, dilation: int = 1, *, bias: bool = False) -> list[nn.Module]:
    """A 3x3 convolution, batch norm and ReLU."""
    convolution = nn.Conv2d(channels, out, 3, 1, dilation, dilation, bias=bias)
    return [convolution, RankOrderedBatchNorm(out), nn.ReLU(True)]


def new_heads(
    heads: Sequence[Head],
    *,
    joined: int,
    middle: int,
    inner: int,
    num_classes: int,
    bias: bool,
) -> nn.ModuleDict:
    """The modules of some heads by name.

    Args:
        heads: each once.
        joined: channels of the decoder's input.
        middle: channels of the third stage.
        inner: channels inside the decoder.
        num_classes: of the logits.
        bias: whether the 3x3 convolutions of an embedding have one, as `model.decoder_bias`.
    """
    modules: dict[Head, nn.Module] = {}
    for head in heads:
        if head is Head.embedding:
            hidden = [*conv3(joined, inner, bias=bias), *conv3(inner, inner, bias=bias)]
            layers = [*hidden, nn.Conv2d(inner, inner, 1)]
        elif head is Head.auxiliary:
            layers = [*conv3(middle, inner), nn.Conv2d(inner, num_classes, 1)]
        else:
            layers = [nn.Conv2d(inner, inner, 1), nn.ReLU(True), nn.Conv2d(inner, inner // 2, 1)]
        modules[head] = nn.Sequential(*layers)
    return nn.ModuleDict({head.value: module for head, module in modules.items()})
