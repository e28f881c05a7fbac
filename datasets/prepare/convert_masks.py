"""Masks made of what others published: SBD's `.mat`, Cityscapes' label ids."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.catalog import IGNORED, DatasetSpec
from datasets.errors import DataError
from datasets.images.decode import MaskCode, indexed_png, read_mask
from datasets.prepare.assemble import ImageMaskPair

_MATRIX, _COMPRESSED = 14, 15
_STRUCT = 2  # array class; all of 6 to 15 are numeric
_NUMERIC = range(6, 16)
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}


@dataclass(frozen=True)
class _Element:
    kind: int
    data: memoryview


@dataclass(frozen=True)
class _Matrix:
    """The head of a matrix, and its elements after that."""

    array_class: int
    shape: tuple[int, ...]
    name: str
    rest: list[_Element]


def sbd_mask(data: bytes, place: str) -> NDArray[np.uint8]:
    """The class indices in an SBD file, (height, width).

    Args:
        data: the file's bytes.
        place: its path, for errors.

    Raises:
        DataError: no such file, or a broken one.
    """
    if data.startswith(b"\x89HDF") or data[:20].startswith(b"MATLAB 7.3"):
        raise DataError(
            f"{place} is of MATLAB's version 7.3. SBD's own files are of version 5: take "
            "cls/ from benchmark.tgz."
        )
    if not data.startswith(b"MATLAB 5.0") or data[126:128] != b"IM":
        raise DataError(
            f"{place} is no MATLAB file of version 5, little end first. Bring a fresh copy from "
            "benchmark.tgz."
        )
    try:
        return _segmentation(memoryview(data)[128:], place)
    except (struct.error, zlib.error, ValueError, IndexError, KeyError, StopIteration) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{place} is broken ({error or type(error).__name__}). Bring a fresh copy from "
            "benchmark.tgz."
        ) from error


def _segmentation(data: memoryview, place: str) -> NDArray[np.uint8]:
    for element in _elements(data):
        matrix = _matrix(element)
        if matrix.name == "GTcls" and matrix.array_class == _STRUCT:
            field = _fields(matrix)["Segmentation"]
            values = np.frombuffer(field.rest[0].data, "<" + _TYPES[field.rest[0].kind])
            mask = values.reshape(field.shape, order="F")
            if field.array_class not in _NUMERIC or mask.ndim != 2 or not mask.size:
                raise ValueError("Segmentation is no matrix of numbers")
            if mask.min() < 0 or mask.max() > 255:
                raise ValueError("Segmentation does not fit 8 bits")
            return np.ascontiguousarray(mask.astype(np.uint8))
    raise DataError(
        f"{place} holds no GTcls: is it of SBD's folder cls/? (inst/ holds GTinst.) Take it from "
        "cls/ of benchmark.tgz."
    )


def _elements(data: memoryview) -> Iterator[_Element]:
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, place)
        if kind >> 16:  # small: size and type share the first word
            yield _Element(kind & 0xFFFF, data[place + 4 : place + 4 + (kind >> 16)])
            place += 8
            continue
        content = data[place + 8 : place + 8 + size]
        if len(content) < size:
            raise ValueError(f"{size} bytes are promised, {len(content)} are there")
        place += 8 + size
        if kind == _COMPRESSED:
            yield from _elements(memoryview(zlib.decompress(content)))
        else:
            place += -place % 8
            yield _Element(kind, content)


def _matrix(element: _Element) -> _Matrix:
    if element.kind != _MATRIX:
        raise ValueError(f"an element of type {element.kind} where a matrix is expected")
    flags, shape, name, *rest = _elements(element.data)
    array_class = struct.unpack_from("<I", flags.data)[0] & 0xFF
    dimensions = struct.unpack(f"<{len(shape.data) // 4}i", shape.data)
    return _Matrix(array_class, dimensions, bytes(name.data).decode("latin1"), rest)


def _fields(matrix: _Matrix) -> dict[str, _Matrix]:
    """The fields of a 1 x 1 struct."""
    width, names = struct.unpack("<i", matrix.rest[0].data)[0], bytes(matrix.rest[1].data)
    found = {}
    for index, element in enumerate(matrix.rest[2:]):
        name = names[index * width : (index + 1) * width].split(b"\0")[0].decode("latin1")
        if name == "Segmentation":  # the others may hold anything
            found[name] = _matrix(element)
    return found


# Cityscapes' labels.py: the label id of every train id; all other labels are ignored.
TRAIN_LABELS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_NUM_LABELS = 34


def made_mask(data: bytes, pair: ImageMaskPair, spec: DatasetSpec) -> bytes:
    """The mask file of a pair.

    Args:
        data: the bytes of its source.
        pair: says how it is made.
        spec: whose palette a new file gets.

    Raises:
        DataError: the source is broken, or its values are unknown.
    """
    if pair.making == "as_it_is":
        return data
    if pair.making == "sbd":
        return indexed_png(Image.fromarray(sbd_mask(data, str(pair.mask))), spec)
    labels = np.asarray(read_mask(data, str(pair.mask), _LABELS))
    table = np.full(256, IGNORED, dtype=np.uint8)
    table[list(TRAIN_LABELS)] = np.arange(len(TRAIN_LABELS))
    return indexed_png(Image.fromarray(table[labels]), spec)


_LABELS = MaskCode(tuple(range(_NUM_LABELS)))
