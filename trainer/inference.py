"""Using a trained network: load it, predict masks for a folder of images, export it to one file.

An exported `.safetensors` file carries its configuration and class names in its metadata, so it
needs no other file of the run.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from datasets.errors import DataError
from datasets.files import file_sha256
from datasets.images.decode import read_image
from datasets.location import num_classes, spec_of
from datasets.spec import DatasetSpec
from trainer.checkpoint import read_packed
from trainer.checkpoint_manifest import CHECKPOINTS, read_manifest
from trainer.config.compose import from_json
from trainer.config.fingerprint import config_json, fingerprint
from trainer.config.schema import TrainConfig
from trainer.evaluate import predict
from trainer.network.deeplab import mean_of
from trainer.state import empty_networks

METADATA = "run"  # the one entry of an exported file's metadata, JSON


class NetworkError(ValueError):
    """A file is missing or damaged, or does not hold a trained network."""


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, with the configuration and dataset it was trained on."""

    network: nn.Module
    config: TrainConfig
    spec: DatasetSpec


def load_trained(path: Path) -> Trained:
    """The network in a run's folder (its best weights), a checkpoint, or an exported file.

    Raises:
        NetworkError: the file is missing, broken, or lacks its configuration.
    """
    if path.is_dir():
        path = path / CHECKPOINTS / "best.pt"
    if not path.is_file():
        raise NetworkError(
            f"{path} does not exist; name a run's folder, one of its checkpoints/*.pt, or a file "
            "written by `python -m trainer export`."
        )
    packed, config_json = _exported(path) if path.suffix == ".safetensors" else _saved(path)
    config = from_json(config_json)
    networks = empty_networks(config, num_classes(config.data))
    if "weights" in packed:
        network = mean_of(networks)
        network.load_state_dict(packed["weights"])
    else:
        for name, part in networks.items():
            part.load_state_dict(_part(packed["tensors"], f"network.{name}."))
        network = mean_of(networks)
    return Trained(network.eval(), config, spec_of(config.data))


def _exported(path: Path) -> tuple[dict[str, Any], str]:
    """Content and configuration (JSON) of an exported file."""
    with safe_open(path, framework="pt") as file:
        about = (file.metadata() or {}).get(METADATA)
        if about is None:
            raise NetworkError(f"{path} carries no configuration; export it from its run's folder.")
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {"weights": weights}, json.dumps(json.loads(about)["config"])


def _saved(path: Path) -> tuple[dict[str, Any], str]:
    """Content and configuration (JSON) of a checkpoint.

    best.pt holds the weights that are scored; the checkpoint of a step the whole training state.
    """
    manifest = read_manifest(path.with_suffix(".json"))
    if manifest is None or file_sha256(path) != manifest.sha256:
        raise NetworkError(
            f"{path} is not what its manifest {path.with_suffix('.json').name} promises; use "
            "another checkpoint of the run."
        )
    return read_packed(path), manifest.config_json


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name has a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def describe(trained: Trained) -> dict[str, Any]:
    """Key, dataset and class names: the metadata of an exported file besides its configuration."""
    return {
        "key": trained.config.key,
        "dataset": trained.spec.name,
        "classes": list(trained.spec.class_names),
    }


ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
OVERLAY = 0.5  # share of the class colour in an overlay; the image has the rest
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright


def predict_folder(trained: Trained, images: Path, out: Path, device: str) -> Iterator[str]:
    """Write `<name>.png` (class ids, with the palette) and `<name>_overlay.png` per image.

    Images are decoded as in training. `<name>` is the file's name without its ending, or with it
    where two images would otherwise write the same file.

    Args:
        trained: network, configuration and palette.
        images: a folder; its images are taken in order of name.
        out: another folder.
        device: cpu or cuda.

    Yields:
        A line per image: what was written, or why it was not.

    Raises:
        ValueError: there is no image in the folder that can be read, or `out` is the same folder.
    """
    paths = _images_in(images)
    if out.resolve() == images.resolve():
        raise ValueError(f"out={out} is the folder of the images, which masks would overwrite.")
    out.mkdir(parents=True, exist_ok=True)
    trained.network.to(device)
    written = 0
    for path, stem in zip(paths, _stems(paths), strict=True):
        try:
            image, note = _upright(path)
        except (OSError, DataError) as error:
            yield f"{path}: not read ({error})"
            continue
        _write(trained, np.array(image), out / stem, device)
        written += 1
        yield f"{path}: {out / stem}.png{note}"
    if not written:
        raise ValueError(f"No image of {images} could be read; the lines above say why.")


def _images_in(folder: Path) -> list[Path]:
    """The files that look like images, in order of name."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; images=DIR names one that holds images.")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and p.is_file())
    if not paths:
        raise ValueError(
            f"{folder} holds no image; files ending in {', '.join(sorted(ENDINGS))} are read."
        )
    return paths


def _stems(paths: list[Path]) -> list[str]:
    """Names to write under, such that no two outputs are the same file.

    A mask of `a_overlay.png` would overwrite the overlay of `a.png`, so both kinds are counted.
    """
    files = Counter(path.stem + end for path in paths for end in ("", "_overlay"))
    return [
        path.name if files[path.stem] + files[path.stem + "_overlay"] > 2 else path.stem
        for path in paths
    ]


def _upright(path: Path) -> tuple[Image.Image, str]:
    """The image as RGB, and a note for the user where its EXIF tag made us rotate it.

    Training refuses such files, because a mask may not be rotated with them; here there is none.
    """
    data = path.read_bytes()
    try:
        return read_image(data, str(path)), ""
    except DataError:
        with Image.open(io.BytesIO(data)) as image:
            if image.getexif().get(_ORIENTATION, 1) == 1:
                raise
            turned = io.BytesIO()
            ImageOps.exif_transpose(image).save(turned, "png", exif=b"")
        return read_image(turned.getvalue(), str(path)), " (turned upright, as its EXIF says)"


def _write(
    trained: Trained,
    pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]",
    stem: Path,
    device: str,
) -> None:
    """Write mask and overlay of one image, pixels (H, W, 3)."""
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device)
    with torch.no_grad():
        classes = predict(trained.network, batch, trained.config)[0].to(torch.uint8).cpu().numpy()
    mask = Image.fromarray(classes)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(trained.spec.palette)] = trained.spec.palette
    mask.putpalette(palette.tobytes())
    mask.save(stem.with_name(stem.name + ".png"))
    mixed = pixels * (1.0 - OVERLAY) + palette[classes] * OVERLAY
    Image.fromarray(mixed.round().astype(np.uint8)).save(stem.with_name(stem.name + "_overlay.png"))


def export(run: Path, out: Path) -> None:
    """Write the best weights with their configuration; the same bytes each time.

    Args:
        run: a run's folder or one of its checkpoints.
        out: the file to write; it appears whole, by rename.

    Raises:
        NetworkError: there are no whole weights in `run`.
        ValueError: `out` does not end in .safetensors, by which programs know the format.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"out={out} must end in .safetensors, the format that is written.")
    trained = load_trained(run)
    weights = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    about = describe(trained) | {"fingerprint": fingerprint(trained.config)}
    about["config"] = json.loads(config_json(trained.config))
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".tmp")
    # One entry only: safetensors writes several in an order that differs between processes.
    save_file(weights, part, {METADATA: json.dumps(about, sort_keys=True)})
    part.replace(out)
