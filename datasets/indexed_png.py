"""Class indices as a PNG whose palette shows them; the palette is for people, readers skip it."""

import io

from PIL import Image

from datasets.catalog import DatasetSpec

_IGNORED_COLOUR = (224, 224, 192)  # VOC's own cream


def indexed_png(mask: Image.Image, spec: DatasetSpec) -> bytes:
    """The bytes of a PNG.

    Args:
        mask: class indices of mode L; gets the palette.
        spec: whose colours.
    """
    buffer = io.BytesIO()
    colours = [*spec.palette, *[(0, 0, 0)] * (255 - len(spec.palette)), _IGNORED_COLOUR]
    mask.putpalette([channel for colour in colours for channel in colour])
    mask.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
