"""From bytes to what the network sees."""

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB
STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to float32, as ToTensor and Normalize do; channels last in memory."""
    mean = torch.tensor(MEAN, device=images.device)[:, None, None]
    std = torch.tensor(STD, device=images.device)[:, None, None]
    scaled = images.to(torch.float32).div_(255.0)
    return scaled.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)
