"""First weights: drawn from keyed random numbers, or loaded.

With `model.init=imagenet` the backbone is loaded from a file; the head is drawn in any case.
"""

import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn

from datasets.randomness import KeyedRandom, Stream
from trainer.config.schema import HeadInit, Init, TrainConfig
from trainer.network.deeplab import DeepLabV3Plus
from trainer.network.pretrained import Pretrained, find_weights, load_backbone


def init_weights(
    model: DeepLabV3Plus, config: TrainConfig, *, head_key: str = "", backbone_key: str = ""
) -> Pretrained | None:
    """Fill every parameter of `model`.

    Backbone convolutions are Kaiming normal (fan out), head convolutions torch's default uniform
    or Kaiming normal (fan in), as `model.head_init` says. torch's own generators are not used,
    because their numbers depend on the CPU's capabilities.

    Args:
        model: changed in place.
        config: of the run.
        head_key: another text draws another head; the backbone stays the same.
        backbone_key: another text draws another backbone, and no file is loaded.

    Returns:
        The file the backbone was loaded from; None when it was drawn.

    Raises:
        WeightsError: `model.init=imagenet` and the file is missing or does not match.
    """
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                in_backbone = name.startswith("backbone.")
                # A suffix, since the name's beginning says how a convolution is drawn.
                key = name + backbone_key if in_backbone else head_key + name
                _draw(module, key, config.seed, config.model.head_init)
    if config.model.init is Init.random or backbone_key:
        return None
    return load_backbone(model, find_weights(config))


def _draw(module: nn.Conv2d, name: str, seed: int, head_init: HeadInit) -> None:
    """Draw weights and bias of one convolution; keyed by its name, so the order is irrelevant."""
    draws = KeyedRandom(seed, Stream.INIT, zlib.crc32(name.encode()))
    fan_in = module.weight[0].numel()
    if name.startswith("backbone."):
        fan_out = module.weight.shape[0] * module.weight[0, 0].numel() // module.groups
        module.weight.copy_(_normal(draws, module.weight) * math.sqrt(2.0 / fan_out))
    elif head_init is HeadInit.kaiming:
        module.weight.copy_(_normal(draws, module.weight) * math.sqrt(2.0 / fan_in))
    else:
        module.weight.copy_(_uniform(draws, module.weight) / math.sqrt(fan_in))
    if module.bias is not None:
        module.bias.copy_(_uniform(draws, module.bias) / math.sqrt(fan_in))


def _uniform(draws: KeyedRandom, like: Tensor) -> Tensor:
    """Numbers in [-1, 1), of the shape of `like`."""
    unit = (draws.words(like.numel()) >> np.uint64(11)) * 2.0**-53
    return torch.from_numpy(2.0 * unit - 1.0).view(like.shape).to(like.dtype)


def _normal(draws: KeyedRandom, like: Tensor) -> Tensor:
    """Standard normal numbers by Box and Muller, of the shape of `like`."""
    words = draws.words(2 * like.numel())
    unit = ((words >> np.uint64(11)) + 0.5) * 2.0**-53  # never 0, whose logarithm is -inf
    radius, angle = np.split(unit, 2)
    normal = np.sqrt(-2.0 * np.log(radius)) * np.cos(2.0 * np.pi * angle)
    return torch.from_numpy(normal).view(like.shape).to(like.dtype)
