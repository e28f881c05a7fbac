"""First weights: drawn by our own keyed numbers, then overwritten by ImageNet's where asked."""

import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets.randomness import Draws, Stream
from trainer.choices import Init
from trainer.config import TrainConfig
from trainer.deeplab import DeepLabV3Plus
from trainer.manifest import file_sha256


class WeightsError(ValueError):
    """A file of pretrained weights is missing or does not fit."""


def initialise(model: DeepLabV3Plus, config: TrainConfig) -> str | None:
    """Fill every parameter of `model`.

    Backbone convolutions are Kaiming normal (fan out), head convolutions torch's default uniform;
    torch's own generators are not used, their numbers change with the CPU's capabilities.

    Returns:
        Sha256 of the file of pretrained weights; None when there is none.

    Raises:
        WeightsError: `model.init=imagenet` and the file is missing or does not match.
    """
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                _draw(module, name, config.seed)
    if config.model.init is Init.random:
        return None
    return _load_imagenet(model, config)


def _draw(module: nn.Conv2d, name: str, seed: int) -> None:
    """Weights and bias of one convolution, keyed by its name: no order, no history."""
    draws = Draws(seed, Stream.INIT, zlib.crc32(name.encode()))
    fan_in = module.weight[0].numel()
    if name.startswith("backbone."):
        fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
        module.weight.copy_(_normal(draws, module.weight) * math.sqrt(2.0 / fan_out))
    else:
        module.weight.copy_(_uniform(draws, module.weight) / math.sqrt(fan_in))
    if module.bias is not None:
        module.bias.copy_(_uniform(draws, module.bias) / math.sqrt(fan_in))


def _uniform(draws: Draws, like: Tensor) -> Tensor:
    """Numbers in [-1, 1), of the shape of `like`."""
    unit = (draws.words(like.numel()) >> np.uint64(11)) * 2.0**-53
    return torch.from_numpy(2.0 * unit - 1.0).view(like.shape).to(like.dtype)


def _normal(draws: Draws, like: Tensor) -> Tensor:
    """Standard normal numbers by Box and Muller, of the shape of `like`."""
    words = draws.words(2 * like.numel())
    unit = ((words >> np.uint64(11)) + 0.5) * 2.0**-53
    radius, angle = np.split(unit, 2)
    normal = np.sqrt(-2.0 * np.log(radius)) * np.cos(2.0 * np.pi * angle)
    return torch.from_numpy(normal).view(like.shape).to(like.dtype)


def _load_imagenet(model: DeepLabV3Plus, config: TrainConfig) -> str:
    """Copy a backbone's weights; every key must find its place but the classifier's."""
    path = find_weights(config)
    stored = torch.load(path, map_location="cpu", weights_only=True)
    stored = {key: value for key, value in stored.items() if not key.startswith("fc.")}
    own = model.backbone.state_dict()
    shapes = {key: tuple(value.shape) for key, value in stored.items()}
    wrong = [key for key in own if key not in shapes or shapes[key] != tuple(own[key].shape)]
    wrong = [key for key in wrong if not key.endswith("num_batches_tracked")]
    if wrong or set(stored) - set(own):
        extra = sorted(set(stored) - set(own))
        raise WeightsError(
            f"{path} does not fit {config.model.backbone} with model.stem="
            f"{config.model.stem.value}: {len(wrong)} of {len(own)} entries are missing or of "
            f"another shape ({', '.join(wrong[:3])}), {len(extra)} are unknown "
            f"({', '.join(extra[:3])}). Give run.weights a file of the same network."
        )
    model.backbone.load_state_dict(stored, strict=False)
    return file_sha256(path)


def find_weights(config: TrainConfig) -> Path:
    """The file of ImageNet weights a run needs.

    Raises:
        WeightsError: it is not there.
    """
    path = Path(config.run.weights or f"weights/{config.model.backbone}.pth")
    if not path.is_file():
        raise WeightsError(
            f"model.init=imagenet needs the weights of {config.model.backbone}, and {path} does "
            "not exist. Put UniMatch's file there, or name yours with run.weights=FILE, or train "
            "from nothing with model.init=random."
        )
    return path
