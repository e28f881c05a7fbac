"""A trained network from what a run left behind."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from datasets.catalog import DatasetSpec
from datasets.location import num_classes, spec_of
from trainer.compose import from_json
from trainer.config import TrainConfig
from trainer.deeplab import DeepLabV3Plus
from trainer.manifest import FOLDER, file_sha256, read_manifest

METADATA = "run"  # the one entry of an exported file's metadata, JSON


class NetworkError(ValueError):
    """A file holds no network that can be used."""


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, and the run it comes from."""

    network: DeepLabV3Plus
    config: TrainConfig
    spec: DatasetSpec


def load_trained(path: Path) -> Trained:
    """The network in a run's folder (its best weights), a checkpoint, or an exported file.

    Raises:
        NetworkError: the file is missing, broken, or lacks its configuration.
    """
    if path.is_dir():
        path = path / FOLDER / "best.pt"
    if not path.is_file():
        raise NetworkError(
            f"{path} does not exist; name a run's folder, one of its checkpoints/*.pt, or a file "
            "written by `python -m trainer export`."
        )
    weights, config_json = _exported(path) if path.suffix == ".safetensors" else _saved(path)
    config = from_json(config_json)
    network = DeepLabV3Plus(config.model, num_classes(config.data))
    network.load_state_dict(weights)
    return Trained(network.eval(), config, spec_of(config.data))


def _exported(path: Path) -> tuple[dict[str, Tensor], str]:
    """Weights and configuration of an exported file."""
    with safe_open(path, framework="pt") as file:
        about = (file.metadata() or {}).get(METADATA)
        if about is None:
            raise NetworkError(f"{path} carries no configuration; export it from its run's folder.")
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return weights, json.dumps(json.loads(about)["config"])


def _saved(path: Path) -> tuple[dict[str, Tensor], str]:
    """Weights and configuration of a checkpoint."""
    manifest = read_manifest(path.with_suffix(".json"))
    if manifest is None or file_sha256(path) != manifest.sha256:
        raise NetworkError(
            f"{path} is not what its manifest {path.with_suffix('.json').name} promises; use "
            "another checkpoint of the run."
        )
    packed = torch.load(path, map_location="cpu", weights_only=True)
    if "weights" in packed:
        return packed["weights"], manifest.config_json
    student = {
        name.removeprefix("student."): value
        for name, value in packed["tensors"].items()
        if name.startswith("student.")
    }
    return student, manifest.config_json


def describe(trained: Trained) -> dict[str, Any]:
    """What an exported file says about itself, beside its configuration."""
    return {
        "key": trained.config.key,
        "dataset": trained.spec.name,
        "classes": list(trained.spec.class_names),
    }
