"""DeepLabV3+ (Chen et al. 2018) in the form of the UniMatch code."""

from collections.abc import Sequence
from functools import cache, lru_cache, partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config.schema import ModelConfig, Pyramid, Upsample
from trainer.network.backbone import IMAGENET_MEAN, IMAGENET_STD, new_backbone
from trainer.network.batch_norm import RankOrderedBatchNorm
from trainer.network.heads import Head, Outputs, conv1, conv3, new_heads

Mode = Literal["nearest", "bilinear"]


def upsample(x: Tensor, size: tuple[int, int], mode: Mode) -> Tensor:
    """Resize (B, C, h, w) to (B, C, H, W).

    `bilinear` is align_corners bilinear as two small matrix products: torch's own kernel adds with
    atomics on CUDA and its deterministic substitute is many times slower.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if x.shape[-2:] == (1, 1):  # both modes are a copy
        return x.expand(-1, -1, *size)
    if mode == "nearest":
        return functional.interpolate(x, size=size, mode="nearest")
    rows = _weights(x.shape[-2], size[0], x.device, x.dtype)
    columns = _weights(x.shape[-1], size[1], x.device, x.dtype)
    return rows @ (x @ columns.T)


@lru_cache(maxsize=64)
def _weights(source: int, target: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Interpolation matrix (target, source); each row has at most two entries and sums to one."""
    position = torch.arange(target, dtype=torch.float64) * ((source - 1) / max(target - 1, 1))
    distance = (position[:, None] - torch.arange(source)).abs()
    return (1.0 - distance).clamp(min=0.0).to(device, dtype)


def normalise(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to float32, as ToTensor and Normalize do; channels last in memory."""
    mean, std = _constants(images.device)
    scaled = images.to(torch.float32, memory_format=torch.channels_last)
    return scaled.div_(255.0).sub_(mean).div_(std)


@cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation, each (3, 1, 1); cached, since a copy makes the host wait each time."""
    mean, std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], device=device)[:, :, None, None]
    return mean, std


class DeepLabV3Plus(nn.Module):
    """Backbone, atrous spatial pyramid and decoder.

    Legend: B images, C classes, H x W pixels, L channels at stride 4, F channels at `model.stride`.
    Parameters whose name lacks "backbone" form the head.
    """

    def __init__(self, config: ModelConfig, num_classes: int, heads: Sequence[Head] = ()) -> None:
        super().__init__()
        self.backbone = new_backbone(config)
        self.upsampling = config.upsample
        low, high = self.backbone.low_channels, self.backbone.high_channels
        inner, skip = config.head_channels, config.low_level_channels
        bias = config.decoder_bias
        self.head = _pyramid(config, high)
        self.reduce = nn.Sequential(*conv1(low, skip, bias=bias))
        self.fuse = nn.Sequential(
            *conv3(skip + inner, inner, bias=bias), *conv3(inner, inner, bias=bias)
        )
        self.classifier = nn.Conv2d(inner, num_classes, 1)
        self.heads = new_heads(
            heads,
            joined=skip + inner,
            middle=self.backbone.middle_channels,
            inner=inner,
            num_classes=num_classes,
            bias=bias,
        )

    @property
    def num_channel_bits(self) -> int:
        """L + F: how many booleans of feature dropout one image needs."""
        return self.backbone.low_channels + self.backbone.high_channels

    @property
    def mode(self) -> Mode:
        """How feature maps and logits are enlarged; A25 allows another way in evaluation."""
        if self.upsampling is Upsample.nearest_train_only:
            return "nearest" if self.training else "bilinear"
        return "nearest" if self.upsampling is Upsample.nearest else "bilinear"

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images (B, 3, H, W)."""
        low, high = self.backbone(images)
        return self.backbone.run(partial(self.decode, size=images.shape[-2:]), low, high)

    def forward_perturbed(self, images: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the features as they are, and with half the channels dropped.

        One decoder pass over both, so that its batch statistics span clean and dropped features.

        Args:
            images: (B, 3, H, W).
            keep: (B, L + F) bool, the channels that stay; kept ones are doubled (Dropout2d 0.5).
        """
        low, high = self.backbone(images)
        both = partial(self._decode_perturbed, size=images.shape[-2:])
        clean, dropped = self.backbone.run(both, low, high, keep).chunk(2)
        return clean, dropped

    def _decode_perturbed(
        self, low: Tensor, high: Tensor, keep: Tensor, *, size: tuple[int, ...]
    ) -> Tensor:
        factor = keep[:, :, None, None].to(low.dtype) * 2.0
        low_factor, high_factor = factor.tensor_split([low.shape[1]], dim=1)
        low = torch.cat([low, low * low_factor])
        high = torch.cat([high, high * high_factor])
        return self.decode(low, high, size)

    def decode(self, low: Tensor, high: Tensor, size: tuple[int, ...]) -> Tensor:
        """Features of the first and last stage to logits at the size of the images."""
        return self.classify(self.join(low, high), size)

    def join(self, low: Tensor, high: Tensor) -> Tensor:
        """Features of the first and last stage to the input of the decoder at stride 4."""
        context = upsample(self.head(high, self.mode), (low.shape[-2], low.shape[-1]), self.mode)
        return _joined([self.reduce(low), context])

    def classify(self, joined: Tensor, size: tuple[int, ...]) -> Tensor:
        """The decoder: what `join` gave to logits at the size of the images."""
        return upsample(self.classifier(self.fuse(joined)), (size[0], size[1]), self.mode)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the input of the decoder; `classify` gives their logits."""
        low, high = self.backbone(images)
        return self.backbone.run(self.join, low, high)

    def outputs(self, images: Tensor, mirrored: Tensor | None = None) -> Outputs:
        """Logits of images (B, 3, H, W), and what the heads give.

        Args:
            images: normalised.
            mirrored: bool (B,), the images whose maps at stride 8 are mirrored back. That happens
                before two cells of stride 4 become one, so that each has the same partner as in an
                image that is not mirrored, also where their number is odd.
        """
        low, middle, high = self.backbone.features(images)
        size = (images.shape[-2], images.shape[-1])
        given = [low, middle, high, *([] if mirrored is None else [mirrored])]
        return self.backbone.run(partial(self._all_of, size=size), *given)

    def _all_of(
        self,
        low: Tensor,
        middle: Tensor,
        high: Tensor,
        mirrored: Tensor | None = None,
        *,
        size: tuple[int, int],
    ) -> Outputs:
        joined = self.join(low, high)
        fused = self.fuse(joined)
        given = {
            "logits": upsample(self.classifier(fused), size, self.mode),
            "fused": fused,
        }
        if Head.embedding.value in self.heads:
            given["embedding"] = self.heads["embedding"](joined)
        if Head.auxiliary.value in self.heads:
            given["auxiliary"] = upsample(self.heads["auxiliary"](middle), size, self.mode)
        if Head.projection.value in self.heads:
            if mirrored is not None:
                fused = torch.where(mirrored[:, None, None, None], fused.flip(-1), fused)
            pooled = functional.avg_pool2d(fused, 2)
            given["projection"] = functional.normalize(self.heads["projection"](pooled), dim=1)
            given["coarse"] = self.classifier(pooled)
        return Outputs(**given)


def mean_of(networks: dict[str, DeepLabV3Plus]) -> nn.Module:
    """A network that predicts the mean logits of some networks; of one, that network itself."""
    return next(iter(networks.values())) if len(networks) == 1 else MeanLogits(networks)


class MeanLogits(nn.Module):
    """The mean of the logits of several networks, whose names are part of its weights' names."""

    def __init__(self, networks: dict[str, DeepLabV3Plus]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.training = any(network.training for network in networks.values())

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images (B, 3, H, W)."""
        return torch.stack([network(images) for network in self.networks.values()]).mean(0)


def _pyramid(config: ModelConfig, channels: int) -> "SpatialPyramid | SummedPyramid":
    """What `model.pyramid` names, of features with so many channels."""
    inner, dilations = config.head_channels, config.dilations
    if config.pyramid is Pyramid.summed:
        return SummedPyramid(channels, inner, dilations)
    kernel = 3 if config.pyramid is Pyramid.three_by_three else 1
    return SpatialPyramid(channels, inner, dilations, kernel=kernel)


class SpatialPyramid(nn.Module):
    """ASPP: one 1x1 branch, dilated 3x3 branches, global pooling; concatenated and projected.

    The projection is a 1x1 convolution (DeepLabV3+) or a 3x3 one (the code of U2PL).
    """

    def __init__(
        self, channels: int, inner: int, dilations: tuple[int, ...], *, kernel: int = 1
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Sequential(*conv1(channels, inner))])
        for dilation in dilations:
            self.branches.append(nn.Sequential(*conv3(channels, inner, dilation)))
        self.pooled = nn.Sequential(*conv1(channels, inner))
        project = conv1 if kernel == 1 else conv3
        self.project = nn.Sequential(*project(inner * (len(dilations) + 2), inner))

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        """(B, F, h, w) to (B, inner, h, w)."""
        # mean() and not AdaptiveAvgPool2d, whose backward is refused by CUDA in deterministic mode.
        pooled = self.pooled(x.mean((2, 3), keepdim=True))
        maps = [branch(x) for branch in self.branches]
        maps.append(upsample(pooled, (x.shape[-2], x.shape[-1]), mode))
        return self.project(_joined(maps))  # type: ignore[no-any-return]


class SummedPyramid(nn.Module):
    """ASPP in the code of CPS (Chen et al. 2021): branches normalised together, pooling added."""

    def __init__(self, channels: int, inner: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv2d(channels, inner, 1, bias=False)])
        for dilation in dilations:
            branch = nn.Conv2d(channels, inner, 3, 1, dilation, dilation, bias=False)
            self.branches.append(branch)
        width = inner * len(self.branches)
        self.project = nn.Sequential(*_leaky(width), nn.Conv2d(width, inner, 1, bias=False))
        self.pooled = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            *_leaky(inner),
            nn.Conv2d(inner, inner, 1, bias=False),
        )
        self.finish = nn.Sequential(*_leaky(inner))

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        """(B, F, h, w) to (B, inner, h, w); enlarging one pixel is a copy in every mode."""
        pooled = self.pooled(x.mean((2, 3), keepdim=True))
        maps = self.project(_joined([branch(x) for branch in self.branches]))
        return self.finish(maps + pooled)  # type: ignore[no-any-return]


def _leaky(channels: int) -> list[nn.Module]:
    return [RankOrderedBatchNorm(channels), nn.LeakyReLU(0.01, inplace=True)]


def _joined(maps: list[Tensor]) -> Tensor:
    """Maps one after another along the channels, channels last.

    A convolution of other layouts is many times slower on CUDA if it is dilated and deterministic.
    One map of another layout, as enlarging makes them, would set the layout of them all.
    """
    return torch.cat([x.contiguous(memory_format=torch.channels_last) for x in maps], dim=1)
