"""The synthetic dataset on disk: a real VOC tree that every machine can make for itself.

It is drawn into a temporary folder beside it and renamed in one step, so that two
processes may draw at once and a half-drawn tree is never used.
"""

import io
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from datasets.config import SyntheticConfig
from datasets.errors import DataError
from datasets.files import whole_folder, write_into
from datasets.images.decode import indexed_png
from datasets.known.synthetic import SYNTHETIC_VERSION, drawn_spec, scene_ids
from datasets.manifest import Manifest, read_manifest, write_manifest
from datasets.synthetic.scene import draw_scene

_JPEG_QUALITY = 92


def ensure_drawn(root: Path, drawing: SyntheticConfig) -> bool:
    """Draw scenes at `root` unless they are there.

    Returns:
        Whether scenes were drawn just now.

    Raises:
        DataError: `root` holds something else; it is left as it is.
        ValueError: such scenes cannot be drawn.
    """
    if _is_drawn(root, drawing):
        return False
    _check_drawable(drawing)
    try:
        with whole_folder(root) as folder:
            _draw_tree(folder, drawing)
    except OSError:
        if not _is_drawn(root, drawing):  # else another process was first, with the same bytes
            raise
        return False
    return True


def drawing_of(drawing: SyntheticConfig) -> dict[str, int]:
    """All that decides the pixels of the scenes."""
    return {**asdict(drawing), "version": SYNTHETIC_VERSION}


def _is_drawn(root: Path, drawing: SyntheticConfig) -> bool:
    """Whether the wanted scenes are at `root`; False when nothing is."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    cure = f"Choose another folder with data.root=DIR, or remove {root} to draw it anew."
    manifest = read_manifest(root)
    if manifest is None or manifest.drawing is None:
        raise DataError(f"{root} holds files that were not drawn by this program. {cure}")
    wanted = drawing_of(drawing)
    if manifest.drawing != wanted:
        changed = sorted(
            f"{name} {manifest.drawing.get(name)} instead of {value}"
            for name, value in wanted.items()
            if manifest.drawing.get(name) != value
        )
        raise DataError(f"{root} holds other drawn scenes ({', '.join(changed)}). {cure}")
    return True


def _draw_tree(folder: Path, drawing: SyntheticConfig) -> None:
    """Images, masks, lists and, last, the manifest."""
    spec, files = drawn_spec(drawing), dict[str, str]()
    train, validation = scene_ids(drawing)
    for index, name in enumerate([*train, *validation]):
        image, mask = draw_scene(drawing, index)
        content = {
            spec.image_file(name): _jpeg(Image.fromarray(image)),
            spec.mask_file(name): indexed_png(Image.fromarray(mask), spec),
        }
        files |= write_into(folder, content)
    for list_name, ids in (("train", train), ("val", validation)):
        lines = "".join(f"{name}\n" for name in ids).encode()
        files |= write_into(folder, {f"ImageSets/Segmentation/{list_name}.txt": lines})
    write_manifest(folder, Manifest(spec.name, files, drawing_of(drawing)))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Full colour resolution: fine textures of small scenes would not survive halving it.
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _check_drawable(drawing: SyntheticConfig) -> None:
    for name in ("num_train", "num_val"):
        if getattr(drawing, name) < 1:
            raise ValueError(f"data.drawn.{name} is {getattr(drawing, name)}; draw at least one.")
    for name in ("width", "height"):
        if getattr(drawing, name) < 16:
            raise ValueError(f"data.drawn.{name} is {getattr(drawing, name)}; at least 16 pixels.")
