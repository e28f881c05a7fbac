"""Decoding image and mask files, and writing masks as PNG with a palette.

Files whose pixels have no certain meaning are refused with the reason: masks stored as JPEG, more
than 8 bits a channel, transparency, an EXIF rotation, unknown class values.
"""

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from datasets.errors import DataError
from datasets.images.pixels import view_of
from datasets.spec import IGNORED, DatasetSpec

_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, TypeError)
_PILLOW = r"PIL\."
_REMARKS = ("ignore", None, Warning, re.compile(_PILLOW), 0)  # as the filter stands in the list
_VERIFY = "`python -m datasets verify` lists every such file."


@dataclass(frozen=True)
class MaskCode:
    """The class of each value in a mask file.

    Attributes:
        values: mask value by class index.
        ignored: value of pixels in neither loss nor score; None when there is none.
    """

    values: tuple[int, ...]
    ignored: int | None = IGNORED

    @property
    def is_plain(self) -> bool:
        """Whether the values are the classes themselves."""
        return self.values == tuple(range(len(self.values))) and self.ignored in (None, IGNORED)

    def known(self) -> set[int]:
        """Every value a mask may hold."""
        return {*self.values} | ({self.ignored} if self.ignored is not None else set())

    def table(self) -> list[int]:
        """Class by mask value, 256 entries; 255 for every value that is no class."""
        classes = {value: index for index, value in enumerate(self.values)}
        return [classes.get(value, IGNORED) for value in range(256)]


def plain_code(num_classes: int) -> MaskCode:
    """The code of masks that hold the classes themselves and 255."""
    return MaskCode(tuple(range(num_classes)))


def read_image(data: bytes, path: str) -> Image.Image:
    """The pixels of an image file as RGB.

    Args:
        data: the file's bytes.
        path: its path, for errors.

    Raises:
        DataError: it cannot be decoded, or is of a kind that is refused.
    """
    image = _opened(data, path, "image")
    _refuse_deep(image, path, "image")
    _load(image, path, "image")
    _refuse_turned(image, path, "image")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        alpha = image.convert("RGBA")
        if alpha.getchannel("A").getextrema() != (255, 255):
            raise DataError(
                f"The image {path} has transparent pixels, and what lies below them is arbitrary. "
                "Flatten it onto a colour and save it without alpha."
            )
        return alpha.convert("RGB")
    if image.mode not in ("RGB", "L", "P", "CMYK", "YCbCr", "1"):
        raise DataError(
            f"The image {path} is of mode {image.mode}, which has no fixed meaning as RGB. "
            "Convert it to 8-bit RGB or grey."
        )
    return image.convert("RGB")


def read_mask(data: bytes, path: str, code: MaskCode) -> Image.Image:
    """The class indices of a mask file, one byte a pixel; 255 is ignored.

    Args:
        data: the file's bytes.
        path: its path, for errors.
        code: what its values mean.

    Raises:
        DataError: it cannot be decoded, is of a kind that is refused, or holds an unknown value.
    """
    mask = _opened(data, path, "mask")
    _refuse_deep(mask, path, "mask")
    if mask.format in ("JPEG", "MPO"):
        raise DataError(
            f"The mask {path} is a JPEG, which changes values near every border. Make the mask "
            "again as PNG; a converted JPEG keeps the wrong values."
        )
    if mask.mode not in ("L", "P"):
        bits = "is of 1 bit" if mask.mode == "1" else "has colours"
        raise DataError(
            f"{path} {bits} (mode {mask.mode}) where class indices are expected. "
            "Convert it to a single-channel or palette PNG whose values are the classes."
        )
    _load(mask, path, "mask")
    _refuse_turned(mask, path, "mask")
    refuse_values(view_of(mask), path, code)
    if code.is_plain:
        return mask
    # A palette's indices are the values, so the table applies to them as to grey.
    grey = Image.frombytes("L", mask.size, mask.tobytes())
    return grey.point(code.table())


def refuse_values(values: NDArray[np.uint8], path: str, code: MaskCode) -> None:
    """Raise if a mask holds a value that is neither a class nor ignored.

    Args:
        values: of a mask, (H, W).
        path: its path, for errors.
        code: what its values mean.

    Raises:
        DataError: there is one.
    """
    count, known = len(code.values), code.known()
    # Subtracting the number of classes wraps modulo 256: the classes and 255 become the highest
    # bytes, so one minimum shows whether there is any other value.
    if code.is_plain and IGNORED in known and (values - np.uint8(count)).min() >= IGNORED - count:
        return
    counts = Image.fromarray(values).histogram()
    wrong = [value for value in range(256) if counts[value] and value not in known]
    if not wrong:
        return
    if code.is_plain:
        allowed = f"there are {count} classes (0 to {count - 1}; {code.ignored} is ignored)"
    else:
        allowed = f"the known values are {', '.join(map(str, sorted(known)))}"
    raise DataError(
        f"{path} holds class {wrong[0]}, but {allowed}. Convert the mask, or check "
        "that dataset and root belong together."
    )


def _opened(data: bytes, path: str, what: str) -> Image.Image:
    if not data:
        raise DataError(
            f"The {what} {path} cannot be decoded: it is empty, as an interrupted copy or a full "
            f"disk leaves it. Bring a fresh copy of the file; {_VERIFY}"
        )
    hint = _disguise(data)
    if hint:
        raise DataError(f"The {what} {path} cannot be decoded: {hint}")
    _ignore_remarks()
    try:
        return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise DataError(
            f"The {what} {path} claims to be larger than Pillow reads ({error}). Its header is "
            "broken: bring a fresh copy; or the image is huge: cut it into parts."
        ) from error
    except _BROKEN as error:
        raise _undecodable(path, what, error) from error


def _ignore_remarks() -> None:
    """Leave out what Pillow says of metadata nobody uses, and of large images: it names no file.

    For good, as `catch_warnings` would bring back what another thread has set meanwhile.
    """
    if _REMARKS not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW)


def _load(image: Image.Image, path: str, what: str) -> None:
    try:
        image.load()
    except _BROKEN as error:
        raise _undecodable(path, what, error) from error


def _undecodable(path: str, what: str, error: Exception) -> DataError:
    # Pillow's own words name the object in memory and not the file.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "it is no image file of a known format" if unknown else error
    return DataError(
        f"The {what} {path} cannot be decoded ({reason}). Bring a fresh copy of the file; {_VERIFY}"
    )


def _disguise(data: bytes) -> str:
    """What else than pixels a file of that name often holds."""
    if data.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS. Run `git lfs pull` in its checkout and copy it again."
    if data[:64].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<error")):
        return "it is a web page, saved instead of the file. Download the file again."
    if data.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        return "it is an archive. Unpack it."
    return ""


def _refuse_turned(image: Image.Image, path: str, what: str) -> None:
    """Raise if EXIF asks viewers to rotate the image.

    The image must be loaded: the metadata of a PNG may follow its pixels.
    """
    try:
        turned = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return  # unreadable metadata turn nothing
    if turned not in (0, 1):
        raise DataError(
            f"The {what} {path} carries EXIF orientation {turned}: viewers turn it, pixel readers "
            "do not, so image and mask may disagree. Turn the pixels (`exiftran -ai FILE`), or "
            "remove the tag if the pixels are upright (`exiftool -Orientation= FILE`)."
        )


def _refuse_deep(image: Image.Image, path: str, what: str) -> None:
    """Raise for more than 8 bits a channel: Pillow reduces 16-bit colours to 8 without warning."""
    tiles = getattr(image, "tile", None)  # only files have it
    raw = tiles[0].args if tiles else ""
    code = str(raw[0] if isinstance(raw, tuple) and raw else raw)
    if image.mode in ("I", "F", "I;16", "I;16B", "I;16L") or "16" in code.partition(";")[2]:
        raise DataError(
            f"The {what} {path} has more than 8 bits a channel (mode {image.mode}, stored as "
            f"{code}). Convert it to 8 bits, with the range of values that matters."
        )


_IGNORED_COLOUR = (224, 224, 192)  # VOC's own cream


def indexed_png(mask: Image.Image, spec: DatasetSpec) -> bytes:
    """The bytes of a mask as PNG; its palette shows the classes, and readers ignore it.

    Args:
        mask: class indices of mode L; gets the palette.
        spec: whose colours.
    """
    buffer = io.BytesIO()
    mask.putpalette(mask_palette(spec))
    mask.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def mask_palette(spec: DatasetSpec) -> bytes:
    """R, G, B for each of the 256 values of a mask file."""
    colours = [*spec.palette, *[(0, 0, 0)] * (255 - len(spec.palette)), _IGNORED_COLOUR]
    return bytes(channel for colour in colours for channel in colour)
