"""A folder of decoded images: each is written once and afterwards mapped into memory.

One file per image: a header (sizes, which source file it was, sha256 of the pixels), then the
bytes. Processes may fill it at once: a file appears whole, by rename, and both would write the
same. Each process checks a file's source and checksum when it first opens it, and writes it anew
when one is wrong. Where the disk is nearly full nothing is added, and images are decoded as if
there were no cache: the bits are the same.
"""

import hashlib
import mmap
import shutil
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.files import atomic_path
from datasets.images.tree import ImageTree

VERSION = 1  # raise it when decoding gives other pixels
_HEADER = struct.Struct("<8s5q32s")  # magic; height, width, channels, source bytes, source mtime
_MAGIC = b"decoded1"


class DecodedCache:
    """The images of a tree as arrays; reads like `ImageTree`."""

    def __init__(
        self, tree: ImageTree, folder: Path, *, fingerprint: str, reserve_bytes: int = 2 << 30
    ) -> None:
        """Use a folder, which may be empty or also hold the caches of other trees.

        Args:
            tree: where images are decoded from.
            folder: of the cache; made when something is written.
            fingerprint: of the data, as `Dataset.fingerprint`.
            reserve_bytes: of the disk that stay free.
        """
        self._tree = tree
        patterns = (tree.image_pattern, tree.mask_pattern, tree.num_classes, tree.code)
        # Another root, other data or another meaning of masks must not share a cache.
        identity = f"{VERSION} {tree.root.resolve()} {patterns} {fingerprint}".encode()
        self._folder = folder / hashlib.sha256(identity).hexdigest()[:16]
        self._reserve_bytes = reserve_bytes
        self._sound: set[Path] = set()
        self._is_full = False

    def image(self, name: str) -> NDArray[np.uint8]:
        """The image as RGB, (H, W, 3).

        Raises:
            DataError: it is missing or cannot be decoded.
        """
        path, source = self._path(name, "image"), self._tree.image_path(name)
        pixels = self._kept(path, source)
        if pixels is None:
            pixels = np.asarray(self._tree.image(name))
            self._keep(path, source, pixels)
        return pixels

    def pair(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (H, W, 3) and class indices (H, W) of one id.

        Raises:
            DataError: one is missing, cannot be decoded, or they do not fit together.
        """
        path, source = self._path(name, "mask"), self._tree.mask_path(name)
        mask = self._kept(path, source)
        if mask is not None:
            image = self.image(name)
            if image.shape[:2] == mask.shape:
                return image, mask
        checked, classes = self._tree.pair(name)
        image, mask = np.asarray(checked), np.asarray(classes)
        self._keep(self._path(name, "image"), self._tree.image_path(name), image)
        self._keep(path, source, mask)
        return image, mask

    def prefetch(self, images: Sequence[str], masks: Sequence[str] = ()) -> None:
        """Announce ids that are read soon; those not in the cache are fetched ahead."""
        self._tree.prefetch(
            [name for name in images if not self._path(name, "image").exists()],
            [name for name in masks if not self._path(name, "mask").exists()],
        )

    def _path(self, name: str, kind: str) -> Path:
        key = hashlib.sha256(f"{kind} {name}".encode()).hexdigest()[:32]
        return self._folder / key[:2] / key

    def _kept(self, path: Path, source: Path) -> NDArray[np.uint8] | None:
        """The kept pixels, if they are there and sound."""
        try:
            with path.open("rb") as file:
                held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, ValueError):  # an empty file cannot be mapped
            return None
        if path not in self._sound:
            if not _is_sound(held, source):
                return None
            self._sound.add(path)
        _, height, width, channels, *_ = _HEADER.unpack_from(held)
        pixels = np.frombuffer(held, np.uint8, offset=_HEADER.size)
        return pixels.reshape((height, width, channels) if channels > 1 else (height, width))

    def _keep(self, path: Path, source: Path, pixels: NDArray[np.uint8]) -> None:
        """Add an image, unless the disk is nearly full."""
        if self._is_full:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free - pixels.nbytes < self._reserve_bytes:
            self._stop_adding("the disk is nearly full")
            return
        height, width, channels = (*pixels.shape, 1)[:3]
        data = np.ascontiguousarray(pixels).data
        sizes = (height, width, channels, *_state(source))
        header = _HEADER.pack(_MAGIC, *sizes, hashlib.sha256(data).digest())
        try:
            with atomic_path(path) as part, part.open("wb") as file:
                file.write(header)
                file.write(data)
        except OSError as error:
            self._stop_adding(str(error))

    def _stop_adding(self, reason: str) -> None:
        self._is_full = True
        warnings.warn(
            f"The cache of decoded images {self._folder} grows no further ({reason}). The run goes "
            "on to the same bits but decodes what is not there; give run.cache_folder a larger "
            "disk.",
            stacklevel=2,
        )


def _is_sound(held: mmap.mmap, source: Path) -> bool:
    """Whether a file is whole, unaltered, and made from today's source."""
    if len(held) < _HEADER.size:
        return False
    magic, height, width, channels, size, changed, checksum = _HEADER.unpack_from(held)
    return (
        magic == _MAGIC
        and len(held) == _HEADER.size + height * width * channels
        and (size, changed) == _state(source)
        and hashlib.sha256(memoryview(held)[_HEADER.size :]).digest() == checksum
    )


def _state(source: Path) -> tuple[int, int]:
    """Bytes and time of change of a file; (-1, -1) when it is gone."""
    try:
        facts = source.stat()
    except FileNotFoundError:
        return -1, -1
    return facts.st_size, facts.st_mtime_ns
