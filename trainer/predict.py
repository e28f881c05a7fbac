"""Masks of a folder of images from a trained network."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from trainer.evaluate import predict
from trainer.loading import Trained

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
OVERLAY = 0.5  # share of the class colour


def predict_folder(trained: Trained, images: Path, out: Path, device: str) -> Iterator[str]:
    """Write `<name>.png` (class ids, with the palette) and `<name>_overlay.png` per image.

    Args:
        trained: the network.
        images: a folder; its images are taken in order of name.
        out: another folder.
        device: cpu or cuda.

    Yields:
        A line per image: what was written, or why it was not.

    Raises:
        ValueError: there is no image in the folder.
    """
    paths = sorted(path for path in images.glob("*") if path.suffix.lower() in ENDINGS)
    if not paths:
        raise ValueError(
            f"{images} holds no image; files ending in {', '.join(sorted(ENDINGS))} are read."
        )
    out.mkdir(parents=True, exist_ok=True)
    trained.network.to(device)
    for path in paths:
        try:
            pixels = np.array(Image.open(path).convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            yield f"{path}: not read ({error})"
            continue
        _write(trained, pixels, out / path.stem, device)
        yield f"{path}: {out / path.stem}.png"


def _write(
    trained: Trained,
    pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]",
    stem: Path,
    device: str,
) -> None:
    """The two files of one image."""
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
