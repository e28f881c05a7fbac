"""What DeepLabV3+ asks of a backbone. A family of backbones is one file with one subclass."""

from abc import ABC, abstractmethod
from importlib import import_module

import torch
from torch import Tensor, nn

from trainer.config.schema import ModelConfig
from trainer.network.batch_norm import RankOrderedBatchNorm
from trainer.network.recompute import BlockRunner

Pixel = tuple[float, float, float]  # RGB in [0, 1]
IMAGENET_MEAN: Pixel = (0.485, 0.456, 0.406)
IMAGENET_STD: Pixel = (0.229, 0.224, 0.225)


class Backbone(nn.Module, ABC):
    """Features of images at stride 4 and at stride 16 (8 where `model.stride` says it).

    A family fills the attributes and gives `stages`. Its parameters have the names of the published
    weights, its batch norm is `RankOrderedBatchNorm`, and it calls its blocks by `self.run`: what
    one call computes is also what `run.memory` recomputes. It draws no random numbers.

    Attributes:
        low_channels: L, of the features at stride 4.
        middle_channels: of the features at stride 16 that auxiliary logits are made of.
        high_channels: F, of the last features, at stride 16.
        pixel_mean: with it and `pixel_std` the published weights were trained.
        pixel_std: see there.
        not_used: how the names of those published weights begin that are no part of the features.
        other_file: a sentence for people whose file does not fit.
        run: calls blocks, and the decoder; says what they keep for the backward pass.
    """

    low_channels: int
    middle_channels: int
    high_channels: int
    pixel_mean: Pixel = IMAGENET_MEAN
    pixel_std: Pixel = IMAGENET_STD
    not_used: tuple[str, ...] = ()
    other_file: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.run = BlockRunner()
        self._scale: Tensor | None
        self._shift: Tensor | None
        scale, shift = None, None
        if (self.pixel_mean, self.pixel_std) != (IMAGENET_MEAN, IMAGENET_STD):
            mean, std = _columns(IMAGENET_MEAN, IMAGENET_STD)
            own_mean, own_std = _columns(self.pixel_mean, self.pixel_std)
            scale, shift = std / own_std, (mean - own_mean) / own_std
        # Buffers, since a copy from the host would make it wait; no part of the weights.
        self.register_buffer("_scale", scale, persistent=False)
        self.register_buffer("_shift", shift, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) to features at stride 4 and stride 16."""
        low, _, high = self.features(images)
        return low, high

    def features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images to the features at stride 4, those in the middle, and the last ones.

        Args:
            images: (B, 3, H, W), as `trainer.network.deeplab.normalise` gives them.
        """
        if self._scale is not None and self._shift is not None:
            images = images * self._scale + self._shift
        return self.stages(images)

    @abstractmethod
    def stages(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of pixels with the family's own mean and deviation."""


def new_backbone(config: ModelConfig) -> Backbone:
    """The backbone that a configuration names; only its own file is imported."""
    module, _, name = config.facts.implementation.rpartition(".")
    backbone: Backbone = getattr(import_module(module), name)(config)
    for layer in backbone.modules():
        if isinstance(layer, RankOrderedBatchNorm):
            layer.is_frozen = config.frozen_norm
            layer.train()
    return backbone


def _columns(mean: Pixel, std: Pixel) -> Tensor:
    """Both as (2, 3, 1, 1)."""
    return torch.tensor([mean, std])[:, :, None, None]
