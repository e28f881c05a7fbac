"""Using a trained network: load it, predict masks for a folder of images, export it to one file.

An exported `.safetensors` file carries its configuration and class names in its metadata, so it
needs no other file of the run.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from datasets.errors import DataError
from datasets.files import file_sha256, files_below
from datasets.images.decode import read_image
from datasets.known.registry import known_dataset
from datasets.location import spec_of
from datasets.spec import DatasetSpec, voc_colour
from datasets.wording import did_you_mean_path, quantity
from trainer.checkpoint import read_packed
from trainer.checkpoint_manifest import CHECKPOINTS, read_manifest
from trainer.config.compose import from_json
from trainer.config.fingerprint import config_json, fingerprint
from trainer.config.schema import EvaluationMode, TrainConfig
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
    folder = path
    if path.is_dir():
        path = path / CHECKPOINTS / "best.pt"
    if not path.is_file():
        inside = [
            *folder.glob(f"*/{CHECKPOINTS}/best.pt"),
            *folder.glob(f"runs/*/{CHECKPOINTS}/best.pt"),
        ]
        runs = sorted(best.parents[1] for best in inside)
        if runs:
            raise NetworkError(
                f"{folder} holds {quantity(len(runs), 'run')} and is none itself; name one, such "
                f"as {runs[0]}."
            )
        raise NetworkError(
            f"{path} does not exist; name a run's folder, one of its checkpoints/*.pt, or a file "
            f"written by `python -m trainer export`.{did_you_mean_path(path)}"
        )
    packed, config, class_names = _exported(path) if path.suffix == ".safetensors" else _saved(path)
    spec = _spec_of(config, class_names, packed)
    networks = empty_networks(config, len(spec.class_names))
    try:
        if "weights" in packed:
            network = mean_of(networks)
            network.load_state_dict(packed["weights"])
        else:
            for name, part in networks.items():
                part.load_state_dict(_part(packed["tensors"], f"network.{name}."))
            network = mean_of(networks)
    except RuntimeError as error:  # load_state_dict names every entry, one a line
        raise NetworkError(f"{path} does not hold the weights of {config.key}.") from error
    return Trained(network.eval(), config, spec)


def _exported(path: Path) -> tuple[dict[str, Any], TrainConfig, list[str]]:
    """Content, configuration and class names of an exported file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise NetworkError(
            f"{path} is cut short or damaged ({error}). Copy it again, or export it again."
        ) from error
    try:
        about = json.loads(metadata[METADATA])
        config_text, names = json.dumps(about["config"]), [str(name) for name in about["classes"]]
    except (KeyError, TypeError, ValueError) as error:
        raise NetworkError(
            f"{path} was not written by `python -m trainer export`: it carries no configuration. "
            "Export it from its run's folder."
        ) from error
    return {"weights": weights}, from_json(config_text), names


def _saved(path: Path) -> tuple[dict[str, Any], TrainConfig, list[str]]:
    """Content and configuration of a checkpoint, and no class names, which it does not hold.

    best.pt holds the weights that are scored; the checkpoint of a step the whole training state.
    """
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise NetworkError(
            f"{path} has no {beside.name} beside it. A checkpoint of this program is both files; "
            "`python -m trainer export` makes one file that needs no other."
        )
    manifest = read_manifest(beside)
    if manifest is None or file_sha256(path) != manifest.sha256:
        raise NetworkError(
            f"{path} is not what its manifest {beside.name} promises; use another checkpoint of "
            "the run."
        )
    return read_packed(path), from_json(manifest.config_json), []


def _spec_of(config: TrainConfig, class_names: list[str], packed: dict[str, Any]) -> DatasetSpec:
    """The spec of the training data, also where a user's own folder is not at hand.

    Args:
        config: of the run.
        class_names: of such a folder; empty where its description or the weights have to say.
        packed: the weights.
    """
    spec = known_dataset(config.data.dataset).spec
    if spec.kind != "described":
        return spec_of(config.data)
    if not class_names:
        with suppress(DataError):
            return spec_of(config.data)
        class_names = _numbers(packed)
    palette = tuple(voc_colour(label) for label in range(len(class_names)))
    return replace(spec, class_names=tuple(class_names), palette=palette)


def _numbers(packed: dict[str, Any]) -> list[str]:
    """Names for the classes of weights without names: as many as the classifier has outputs."""
    tensors: dict[str, Tensor] = packed.get("weights") or packed["tensors"]
    sizes = [len(value) for name, value in tensors.items() if name.endswith("classifier.bias")]
    return [f"class {label}" for label in range(sizes[0])] if sizes else []


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
WHOLE_PIXELS = 2**24  # of the largest image that a network sees whole
_IN_WINDOWS = (EvaluationMode.slide, EvaluationMode.slide_inside)
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright


def predict_folder(trained: Trained, images: Path, out: Path, device: str) -> Iterator[str]:
    """Write `<name>.png` (class ids, with the palette) and `<name>_overlay.png` per image.

    Images are decoded as in training. `<name>` is the file's path below `images` without its
    ending, or with it where two images would otherwise write the same file.

    Args:
        trained: network, configuration and palette.
        images: a folder; the images in it and in folders below it, also linked ones, are taken in
            order of path.
        out: another folder.
        device: cpu or cuda.

    Yields:
        A line per image: what was written, or why it was not.

    Raises:
        ValueError: the folder has no image, `out` is the same folder, or, after all others were
            written, some images could not be read.
    """
    paths = _images_in(images, out)
    out.mkdir(parents=True, exist_ok=True)
    trained.network.to(device)
    num_unread = 0
    for path, stem in zip(paths, _stems(paths), strict=True):
        try:
            image, note = _upright(images / path)
        except (OSError, DataError) as error:
            num_unread += 1
            yield f"{images / path}: not read ({error})"
            continue
        (out / stem).parent.mkdir(parents=True, exist_ok=True)
        note += _write(trained, np.array(image), out / stem, device)
        yield f"{images / path}: {out / stem}.png{note}"
    if num_unread:
        raise ValueError(
            f"{num_unread} of {quantity(len(paths), 'image')} of {images} could not be read; the "
            "lines above say why."
        )


def _images_in(folder: Path, out: Path) -> list[Path]:
    """Paths below the folder of what looks like images; what lies in `out` is left out."""
    if not folder.is_dir():
        near = did_you_mean_path(folder)
        raise ValueError(f"{folder} is no folder; images=DIR names one that holds images.{near}")
    if out.resolve() == folder.resolve():
        raise ValueError(f"out={out} is the folder of the images, which masks would overwrite.")
    written = out.resolve()
    paths = [
        path
        for path in map(Path, sorted(files_below(folder)))
        if path.suffix.lower() in ENDINGS
        and not any(part.startswith(".") for part in path.parts)
        and not (folder / path).resolve().is_relative_to(written)
    ]
    if not paths:
        raise ValueError(
            f"{folder} holds no image; files ending in {', '.join(sorted(ENDINGS))} are read."
        )
    return paths


def _stems(paths: list[Path]) -> list[str]:
    """Paths to write under, such that no two outputs are the same file.

    A mask of `a_overlay.png` would overwrite the overlay of `a.png`, so both kinds are counted.
    """
    stems = [path.with_suffix("").as_posix() for path in paths]
    files = Counter(stem + end for stem in stems for end in ("", "_overlay"))
    return [
        path.as_posix() if files[stem] + files[stem + "_overlay"] > 2 else stem
        for path, stem in zip(paths, stems, strict=True)
    ]


def _upright(path: Path) -> tuple[Image.Image, str]:
    """The image as RGB, and a note for the user where its EXIF tag made us rotate it.

    Training refuses such files, because a mask may not be rotated with them; here there is none.
    """
    if path.exists() and not path.is_file():
        raise DataError("it is no regular file")  # to open a pipe would wait for its other end
    data = path.read_bytes()
    try:
        return read_image(data, str(path)), ""
    except DataError:
        turned = _turned(data)
        if turned is None:
            raise
        return read_image(turned, str(path)), " (turned upright, as its EXIF says)"


def _turned(data: bytes) -> bytes | None:
    """The image as its EXIF tag turns it, as PNG; None if it has no such tag, or is no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.getexif().get(_ORIENTATION, 1) == 1:
                return None
            turned = io.BytesIO()
            ImageOps.exif_transpose(image).save(turned, "png", exif=b"")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return turned.getvalue()


def _write(
    trained: Trained,
    pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]",
    stem: Path,
    device: str,
) -> str:
    """Write mask and overlay of one image, pixels (H, W, 3); a note for the user, or nothing."""
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device)
    config, note = trained.config, ""
    if config.evaluation.mode not in _IN_WINDOWS and pixels[..., 0].size > WHOLE_PIXELS:
        # Activations of the whole image would take more memory than machines have.
        evaluation = replace(config.evaluation, mode=EvaluationMode.slide)
        config = replace(config, evaluation=evaluation)
        note = (
            f" ({pixels.shape[1]}x{pixels.shape[0]} pixels: too large to be seen whole, so "
            f"predicted in windows of {config.data.crop})"
        )
    with torch.no_grad():
        classes = predict(trained.network, batch, config)[0].to(torch.uint8).cpu().numpy()
    mask = Image.fromarray(classes)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(trained.spec.palette)] = trained.spec.palette
    mask.putpalette(palette.tobytes())
    mask.save(stem.with_name(stem.name + ".png"))
    mixed = pixels * (1.0 - OVERLAY) + palette[classes] * OVERLAY
    Image.fromarray(mixed.round().astype(np.uint8)).save(stem.with_name(stem.name + "_overlay.png"))
    return note


def export(run: Path, out: Path) -> bool:
    """Write the best weights with their configuration; the same bytes each time.

    Args:
        run: a run's folder or one of its checkpoints.
        out: the file to write; it appears whole, by rename.

    Returns:
        Whether the names of the classes are known.

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
    return trained.spec.class_names != tuple(_numbers({"weights": weights}))
