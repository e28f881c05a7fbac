"""From bytes to what the network sees."""

from functools import cache

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB
STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to float32, as ToTensor and Normalize do; channels last in memory."""
    mean, std = _constants(images.device)
    scaled = images.to(torch.float32).div_(255.0)
    return scaled.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


@cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation, each (3, 1, 1); copied to a device once, a copy waits for it."""
    mean, std = torch.tensor([MEAN, STD], device=device)[:, :, None, None]
    return mean, std
