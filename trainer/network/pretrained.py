"""ImageNet weights of the backbone: find the file, check every key, load tensors only."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from datasets.files import file_sha256
from datasets.wording import quantity
from trainer.config.first_weights import places_of_weights
from trainer.config.schema import TrainConfig
from trainer.network.deeplab import DeepLabV3Plus


class WeightsError(ValueError):
    """A file of pretrained weights is missing, broken or of another network."""


@dataclass(frozen=True)
class Pretrained:
    """The file a backbone was loaded from.

    Attributes:
        matched: entries of the file that were loaded, which cover the whole backbone.
    """

    path: str
    sha256: str
    matched: int


def find_weights(config: TrainConfig) -> Path:
    """The file of ImageNet weights a run needs.

    Raises:
        WeightsError: it is not there.
    """
    backbone = config.model.backbone
    places = places_of_weights(config)
    for path in places:
        if path.is_file():
            return path
    raise WeightsError(
        f"model.init=imagenet needs the weights of {backbone}, and there is no "
        f"{' or '.join(str(path) for path in places)}. Bring them with `python -m trainer weights "
        f"fetch {backbone}` or, without a network, `python -m trainer weights import {backbone} "
        "FILE`; run.weights=FILE names another file; model.init=random trains from nothing."
    )


def load_backbone(network: DeepLabV3Plus, path: Path) -> Pretrained:
    """Copy a file's weights into the backbone; apart from the classifier, every key must match.

    Raises:
        WeightsError: the file is broken or of another network.
    """
    backbone = network.backbone
    stored = {
        key: value
        for key, value in read_tensors(path).items()
        if not key.startswith(backbone.not_used)
    }
    own = backbone.state_dict()
    # Old files lack batch-norm's counters, which are read only when momentum is None.
    needed = {key for key in own if not key.endswith("num_batches_tracked")}
    wrong = sorted(
        key for key in needed if key not in stored or stored[key].shape != own[key].shape
    )
    extra = sorted(set(stored) - set(own))
    if wrong or extra:
        raise WeightsError(
            f"{path} is not of this backbone: {len(wrong)} of "
            f"{quantity(len(needed), 'entry', 'entries')} are missing or of another shape "
            f"({', '.join(wrong[:3]) or '-'}), {len(extra)} are unknown "
            f"({', '.join(extra[:3]) or '-'}). {backbone.other_file}".rstrip()
        )
    backbone.load_state_dict(stored, strict=False)
    return Pretrained(str(path), file_sha256(path), len(stored))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from a pickle that may hold tensors only."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = re.split(r"\.\s|\n", f"{type(error).__name__}: {error}")[0]
        raise WeightsError(
            f"{path} cannot be read as weights ({reason}); fetch or import it again."
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(x, Tensor) for x in tensors.values()):
        raise WeightsError(f"{path} holds no plain state dict of tensors; export one first.")
    return dict(tensors)
