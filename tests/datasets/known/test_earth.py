"""The rule by which tiles lie on the globe, on the size of the real picture."""

from itertools import product

import pytest

from datasets.known.earth import (
    BLOCK,
    CLASS_OF_COVER,
    EARTH,
    TILE,
    Tile,
    is_development,
    is_validation,
    tile_places,
)

WIDTH, HEIGHT = 5400, 2700
TILES = list(tile_places(WIDTH, HEIGHT))


def gap(one: Tile, two: Tile) -> int:
    """Pixels between two tiles, also across the date line; negative where they overlap."""
    across = min(abs(one.left - two.left + turn) for turn in (-WIDTH, 0, WIDTH))
    return max(across, abs(one.top - two.top)) - TILE


def test_tiles_lie_in_the_picture_and_apart_from_each_other() -> None:
    assert len(TILES) == (WIDTH // BLOCK) * (HEIGHT // BLOCK) * 9
    assert all(0 <= tile.left <= WIDTH - TILE and 0 <= tile.top <= HEIGHT - TILE for tile in TILES)
    near = [(one, two) for one, two in product(TILES[:30], TILES) if one != two]
    assert min(gap(one, two) for one, two in near) == 0


@pytest.mark.parametrize("held_out", [is_validation, is_development])
def test_no_held_out_tile_touches_another(held_out) -> None:
    held = [tile for tile in TILES if held_out(tile.name)]
    others = [tile for tile in TILES if not held_out(tile.name)]

    assert 0.15 < len(held) / len(TILES) < 0.25
    assert min(gap(one, two) for one in held for two in others) == 12


def test_an_id_names_its_place() -> None:
    assert all(Tile.of(tile.name) == tile for tile in TILES)
    assert len({tile.name for tile in TILES}) == len(TILES)


def test_every_land_cover_but_wetland_and_snow_has_one_class() -> None:
    assert set(CLASS_OF_COVER) == {*range(17)} - {11, 15}
    assert set(CLASS_OF_COVER.values()) == {*range(len(EARTH.spec.class_names))}
    assert len(EARTH.spec.palette) == len(EARTH.spec.class_names) == 7
