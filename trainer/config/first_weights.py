"""The file of ImageNet weights that a run begins with: where it lies, and its bytes.

Which file it is stands in no configuration: machines that share a root may each have their own.
Needs no torch.
"""

from pathlib import Path

from datasets.identity import known_sha256
from datasets.location import cache_root, home
from trainer.config.schema import Init, TrainConfig

WEIGHTS_FOLDER = home() / "weights"
SUFFIXES = (".safetensors", ".pth")


def places_of_weights(config: TrainConfig) -> list[Path]:
    """Where the file is looked for, in this order."""
    if config.run.weights:
        return [Path(config.run.weights)]
    return [WEIGHTS_FOLDER / f"{config.model.backbone}{suffix}" for suffix in SUFFIXES]


def first_weights(config: TrainConfig) -> str:
    """sha256 of the file; empty where the weights are drawn, or no file is on this machine."""
    if config.model.init is not Init.imagenet:
        return ""
    there = (path for path in places_of_weights(config) if path.is_file())
    path = next(there, None)
    return known_sha256(path, cache_root(config.data)) or "" if path is not None else ""
