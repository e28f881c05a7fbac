"""Masks of a folder of images from a trained network."""

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from datasets.errors import DataError
from datasets.formats import read_image
from trainer.evaluate import predict
from trainer.loading import Trained

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
OVERLAY = 0.5  # share of the class colour
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright


def predict_folder(trained: Trained, images: Path, out: Path, device: str) -> Iterator[str]:
    """Write `<name>.png` (class ids, with the palette) and `<name>_overlay.png` per image.

    Images are read as training reads them. `<name>` keeps its ending where two would meet.

    Args:
        trained: the network.
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
    """Names to write under, no two files under one; a mask may not meet an overlay either."""
    files = Counter(path.stem + end for path in paths for end in ("", "_overlay"))
    return [
        path.name if files[path.stem] + files[path.stem + "_overlay"] > 2 else path.stem
        for path in paths
    ]


def _upright(path: Path) -> tuple[Image.Image, str]:
    """The pixels as RGB, and a word where they are not those of the file as they lie there."""
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
