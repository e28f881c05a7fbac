"""The upper rows of a PNG, decoded alone; and PNGs whose bytes are the same on every machine.

A PNG is read from the top, and no row depends on one below it. So a file whose header names fewer
rows decodes to just these, by any decoder. Pillow needs 54 ms for a PNG of Cityscapes; kornia_rs
(the extra `fast`) needs 22 for the same bytes, and takes over where it is installed.

Compressors (zlib, zlib-ng, and other versions of them) give other bytes for the same pixels, so a
file that shall be the same everywhere is written without compression.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">II5B")  # width, height, bits, colour, compression, filter, interlace
_GREY, _RGB, _PALETTE = 0, 2, 3
_STORED = 0xFFFF  # bytes of the longest block that is not compressed
# Transparency must be seen whole, and the frames of an animation have heights of their own.
_WHOLE = {b"tRNS", b"acTL", b"fcTL"}
# Anything else may hold what Pillow is asked about (an EXIF orientation) or refuses.
_PLAIN = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"bKGD"}


@dataclass(frozen=True)
class Png:
    """A PNG of 8 bits or less a channel, from which rows can be left out.

    Attributes:
        data: the file.
        size: width and height, pixels.
        layout: of its pixels, where the fast decoder may read them.
    """

    data: bytes
    size: tuple[int, int]
    layout: Literal["rgb", "mono"] | None

    @classmethod
    def of(cls, data: bytes) -> Self | None:
        """The PNG in a file's bytes; None when it is damaged or rows cannot be left out."""
        names = _chunk_names(data)
        if not names or names & _WHOLE:
            return None
        width, height, bits, colour, *_, interlace = _HEADER.unpack_from(data, 16)
        if interlace or bits > 8 or colour not in (_GREY, _RGB, _PALETTE):
            return None
        if not 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0):
            return None
        layouts: dict[tuple[int, int], Literal["rgb", "mono"]] = {(_RGB, 8): "rgb"}
        layouts[_GREY, 8] = "mono"
        return cls(data, (width, height), layouts.get((colour, bits)) if names <= _PLAIN else None)

    def upper(self, rows: int) -> bytes:
        """The file's bytes with a header that says `rows` rows, so a decoder stops there."""
        if rows == self.size[1]:
            return self.data
        header = b"IHDR" + struct.pack(">II", self.size[0], rows) + self.data[24:29]
        checksum = zlib.crc32(header).to_bytes(4, "big")
        return b"".join((self.data[:12], header, checksum, memoryview(self.data)[33:]))

    def fast(self, rows: int) -> NDArray[np.uint8] | None:
        """Its first rows, (rows, W, 3) or (rows, W); None where Pillow has to decode them."""
        decode = decoder() if self.layout else None
        if decode is None:
            return None
        try:
            decoded = decode(self.upper(rows), (rows, self.size[0]), self.layout)
        except Exception:  # noqa: BLE001  # it raises nothing narrower; Pillow says what is wrong
            return None
        pixels: NDArray[np.uint8] = np.asarray(decoded)
        return pixels if self.layout == "rgb" else pixels[..., 0]


@cache
def decoder() -> Callable[..., object] | None:
    """The decoder of kornia_rs (extra `fast`); None when it is not installed."""
    try:
        from kornia_rs.io import decode_image_png_u8
    except ImportError:
        return None
    decode: Callable[..., object] = decode_image_png_u8
    return decode


def stored_png(pixels: NDArray[np.uint8], palette: bytes = b"") -> bytes:
    """The bytes of a PNG without compression, the same on every machine.

    Args:
        pixels: RGB (H, W, 3), or grey (H, W), which are indices where there is a palette.
        palette: R, G, B of each index.
    """
    height, width = pixels.shape[:2]
    grey = _PALETTE if palette else _GREY
    header = _HEADER.pack(width, height, 8, _RGB if pixels.ndim == 3 else grey, 0, 0, 0)
    rows = pixels.reshape(height, -1)
    lines = np.pad(rows, ((0, 0), (1, 0))).tobytes()  # each begins with its filter: 0, none
    chunks = [(b"IHDR", header), (b"IDAT", _stored(lines)), (b"IEND", b"")]
    if palette:
        chunks.insert(1, (b"PLTE", palette))
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) of stored blocks (RFC 1951, 3.2.4)."""
    starts = range(0, len(data), _STORED)
    blocks = b""
    for start in starts:
        block = data[start : start + _STORED]
        is_last = start == starts[-1]
        blocks += struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block
    return b"\x78\x01" + blocks + struct.pack(">I", zlib.adler32(data))


def _chunk_names(data: bytes) -> set[bytes]:
    """Names of all chunks; none when the file is no PNG or ends early."""
    if data[:8] != _SIGNATURE or data[12:16] != b"IHDR":
        return set()
    names, offset = set(), 8
    while offset + 12 <= len(data):
        name = data[offset + 4 : offset + 8]
        names.add(name)
        offset += 12 + int.from_bytes(data[offset : offset + 4], "big")
        if name == b"IEND":
            return names if offset <= len(data) else set()
    return set()
