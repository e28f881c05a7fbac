"""Reading images and masks by id, from files or shards; errors say how to repair the file."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, Protocol

from PIL import Image

from datasets.errors import DataError as DataError
from datasets.images.decode import MaskCode, plain_code, read_image, read_mask
from datasets.spec import DatasetSpec, mask_file

Kind = Literal["image", "mask"]


@dataclass(frozen=True)
class Item:
    """One image or mask as it is stored.

    Attributes:
        data: a file's bytes, or pixels.
        encoding: "file", or what the pixels are: "rgb" or "index" of 8 bits.
        size: width and height, pixels; known of decoded items.
        path: of the file or the shard, for errors.
    """

    data: bytes
    encoding: Literal["file", "rgb", "index"]
    size: tuple[int, int]
    path: str


class Store(Protocol):
    """Holds images and masks that are not separate files, such as Parquet shards."""

    def item(self, kind: Kind, name: str) -> Item:
        """One image or mask."""

    def has(self, kind: Kind, name: str) -> bool:
        """Whether it is there."""

    def prefetch(self, wanted: Sequence[tuple[Kind, str]]) -> None:
        """Start to fetch items that are read soon."""


@dataclass(frozen=True)
class ImageTree:
    """Images and masks by id, in the layout of VOC, of Cityscapes, or any two patterns.

    Attributes:
        root: folder that holds the tree.
        image_pattern: path of an image below the root, with {id}.
        mask_pattern: path of a mask below the root, with {id} or {stem}.
        num_classes: mask values are below it, or 255.
        code: what mask values mean; None when they are the classes and 255.
        store: holds the items instead of files.
    """

    root: Path
    image_pattern: str
    mask_pattern: str
    num_classes: int
    code: MaskCode | None = None
    store: Store | None = None

    def image_path(self, name: str) -> Path:
        """Where the image of an id lies."""
        return self.root / self.image_pattern.format(id=name)

    def mask_path(self, name: str) -> Path:
        """Where the mask of an id lies."""
        return self.root / mask_file(self.mask_pattern, name)

    def names(self, paths: Iterable[str]) -> list[str]:
        """Ids of the images among paths below the root, sorted."""
        before, after = self.image_pattern.split("{id}")
        return sorted(
            path.removeprefix(before).removesuffix(after)
            for path in paths
            if path.startswith(before) and path.endswith(after)
        )

    def image(self, name: str) -> Image.Image:
        """The image as RGB.

        Raises:
            DataError: it is missing, cannot be decoded or is refused (`datasets.images.decode`).
        """
        return self.decoded_image(self.item("image", name))

    def mask(self, name: str) -> Image.Image:
        """The class indices, one byte a pixel; 255 is ignored. Palettes are not applied.

        Raises:
            DataError: the mask is missing, cannot be decoded, or holds something else.
        """
        return self.decoded_mask(self.item("mask", name))

    def has_image(self, name: str) -> bool:
        """Whether there is something to read as an image."""
        return self._has("image", name)

    def has_mask(self, name: str) -> bool:
        """Whether there is something to read as a mask."""
        return self._has("mask", name)

    def pair(self, name: str) -> tuple[Image.Image, Image.Image]:
        """Image and mask of one id.

        Raises:
            DataError: as `image` and `mask`, or the two differ in size.
        """
        image, mask = self.image(name), self.mask(name)
        if image.size != mask.size:
            refuse_sizes(self, name, image.size, mask.size)
        return image, mask

    def prefetch(self, images: Sequence[str], masks: Sequence[str] = ()) -> None:
        """Announce ids that are read soon; separate files are not fetched ahead."""
        if self.store is not None:
            wanted: list[tuple[Kind, str]] = [("image", name) for name in images]
            self.store.prefetch([*wanted, *(("mask", name) for name in masks)])

    def _has(self, kind: Kind, name: str) -> bool:
        if self.store is not None:
            return self.store.has(kind, name)
        path = self.image_path(name) if kind == "image" else self.mask_path(name)
        return path.exists() or path.is_symlink()

    def item(self, kind: Kind, name: str) -> Item:
        """One image or mask as it is stored.

        Raises:
            DataError: it is missing or cannot be read.
        """
        if self.store is not None:
            return self.store.item(kind, name)
        path = self.image_path(name) if kind == "image" else self.mask_path(name)
        return Item(file_bytes(path, kind), "file", (0, 0), str(path))

    def decoded_image(self, item: Item) -> Image.Image:
        """An image as RGB."""
        if item.encoding == "rgb":
            return Image.frombytes("RGB", item.size, item.data)
        return read_image(item.data, item.path)

    def decoded_mask(self, item: Item) -> Image.Image:
        """A mask as class indices."""
        if item.encoding == "index":
            return Image.frombytes("L", item.size, item.data)
        return read_mask(item.data, item.path, self.mask_code)

    @property
    def mask_code(self) -> MaskCode:
        """What mask values mean."""
        return self.code or plain_code(self.num_classes)


def tree_of(spec: DatasetSpec, root: Path, store: Store | None = None) -> ImageTree:
    """The tree of a known dataset below a folder."""
    code = MaskCode(spec.mask_values, spec.ignored_value) if spec.mask_values else None
    count = len(spec.class_names)
    return ImageTree(root, spec.image_pattern, spec.mask_pattern, count, code, store)


def file_bytes(path: Path, what: str) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"The {what} {path} is missing. "
            f"{nearby(path) or 'Put it there, or check the root folder and the split; '}"
            "`python -m datasets verify` lists every such file."
        ) from None
    except IsADirectoryError:
        raise DataError(
            f"The {what} {path} is a folder. Move it away and put the file there."
        ) from None
    except PermissionError:
        raise DataError(
            f"The {what} {path} may not be read by this user. Give the right to read it: "
            f"chmod a+r {path} (and a+x on the folders above)."
        ) from None
    except OSError as error:
        raise DataError(
            f"The {what} {path} cannot be read ({error.strerror}). Bring a fresh copy of the file, "
            "or check the disk; `python -m datasets verify` lists every such file."
        ) from error


def nearby(path: Path) -> str:
    """A hint for a missing file: a dangling link or a similar name; empty when there is none."""
    if path.is_symlink():
        return f"It is a link to {path.readlink()}, which is gone; bring the target back. "
    similar: list[str] = []
    if path.parent.is_dir():
        stem = _folded(path.stem)
        similar = sorted(e.name for e in path.parent.iterdir() if _folded(e.stem) == stem)
    if similar and _composed(similar[0]) == _composed(path.name):
        return (
            f"{similar[0]} lies there, whose letters are stored in another Unicode form (composed "
            f"or decomposed, as macOS writes them): rename it to {path.name} of the form here. "
        )
    if similar:
        return f"{similar[0]} lies there: rename or convert it to {path.name}. "
    return ""


def _composed(name: str) -> str:
    """A name in the Unicode form where an accented letter is one character."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(name).lower()


def refuse_sizes(
    tree: ImageTree, name: str, image: tuple[int, int], mask: tuple[int, int]
) -> NoReturn:
    """Say that the image and the mask of an id differ in size.

    Raises:
        DataError: always.
    """
    turned = " It is turned by a quarter." if image == mask[::-1] else ""
    raise DataError(
        f"{tree.mask_path(name)} is {mask[0]}x{mask[1]} pixels, its image "
        f"{tree.image_path(name)} is {image[0]}x{image[1]}.{turned} Replace the one that is wrong."
    )
