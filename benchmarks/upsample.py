"""Enlarging maps, forward and backward: `python -m benchmarks.upsample [key=value ...]`.

align_corners bilinear by torch's own kernel, by two matrix products (`model.upsample=bilinear`),
and nearest, on the maps of RN-50/101 at crops 321 and 801. Settings: rounds, device.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.table import in_turn, print_table, settings
from trainer.network.deeplab import upsample

SHAPES = [  # images, channels, from, to
    (2, 21, 81, 321),
    (4, 256, 21, 81),
    (2, 19, 201, 801),
]


def main(words: list[str]) -> None:
    """Print a table for each shape."""
    given = settings(words, {"rounds": "9", "device": "cpu"})
    torch.set_num_threads(1)
    for images, channels, source, target in SHAPES:
        x = torch.randn(images, channels, source, source, device=given["device"])
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        grad = torch.randn(images, channels, target, target, device=given["device"])
        size = (target, target)
        variants: dict[str, Callable[[Tensor], Tensor]] = {
            "F.interpolate, bilinear": lambda x, size=size: functional.interpolate(
                x, size=size, mode="bilinear", align_corners=True
            ),
            "two matrix products": lambda x, size=size: upsample(x, size, "bilinear"),
            "nearest": lambda x, size=size: upsample(x, size, "nearest"),
        }
        calls = {
            name: lambda f=f, x=x, grad=grad: torch.autograd.grad(f(x), x, grad)
            for name, f in variants.items()
        }
        columns = in_turn(calls, rounds=int(given["rounds"]), device=given["device"])
        gap = max(
            (a(x) - b(x)).abs().max().item()
            for a, b in [(variants["F.interpolate, bilinear"], variants["two matrix products"])]
        )
        title = f"{images} x {channels} maps, {source} to {target}; the two bilinear differ by at"
        print_table(f"{title} most {gap:.1e}", columns)


if __name__ == "__main__":
    main(sys.argv[1:])
