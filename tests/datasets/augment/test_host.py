import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from datasets.augment.host import (
    Box,
    Geometry,
    Photometry,
    ScaleRule,
    draw_box,
    draw_geometry,
    draw_overlap,
    draw_photometry,
    padded_map,
    strong_image,
    weak_image,
    weak_mask,
)
from datasets.config import StrongViewConfig
from tests.support.strategies import draws_of, labels, photo, seeds, sizes

CROP = 32
NOTHING = Photometry(False, (0, 1, 2, 3), 1.3, 1.3, 1.3, 0.1, False, False, 1.0)


def geometry_of(seed: int, size: tuple[int, int]) -> Geometry:
    return draw_geometry(draws_of(seed), size, crop=CROP, rule=ScaleRule())


def by_hand(image: Image.Image, geometry: Geometry, method: int, fill: int) -> Image.Image:
    """UniMatch's own order of Pillow calls: resize, expand right and below, crop, mirror."""
    image = image.resize((geometry.width, geometry.height), method)
    right, below = max(CROP - geometry.width, 0), max(CROP - geometry.height, 0)
    image = ImageOps.expand(image, border=(0, 0, right, below), fill=fill)
    left, top = geometry.left, geometry.top
    image = image.crop((left, top, left + CROP, top + CROP))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if geometry.is_flipped else image


def same(one: Image.Image, two: Image.Image) -> bool:
    return one.mode == two.mode and bool(np.array_equal(np.asarray(one), np.asarray(two)))


@given(seeds, sizes)
def test_weak_views_are_the_hand_made_pillow_calls(seed: int, size: tuple[int, int]) -> None:
    image, mask, geometry = photo(seed, size), labels(seed, size), geometry_of(seed, size)

    assert same(weak_image(image, geometry), by_hand(image, geometry, Image.BILINEAR, 0))
    assert np.array_equal(weak_mask(mask, geometry), by_hand(mask, geometry, Image.NEAREST, 255))


@given(seeds, sizes)
def test_padding_is_where_an_image_without_ignored_pixels_has_them(
    seed: int, size: tuple[int, int]
) -> None:
    geometry = geometry_of(seed, size)
    zeros = Image.new("L", size, 0)

    padded = padded_map(geometry)

    assert np.array_equal(padded, np.asarray(weak_mask(zeros, geometry)) == 255)
    assert not padded.all()


@given(seeds, sizes)
def test_resizing_follows_the_long_side(seed: int, size: tuple[int, int]) -> None:
    width, height = size
    geometry = geometry_of(seed, size)

    long_old, long_new = max(size), max(geometry.width, geometry.height)

    assert int(long_old * 0.5) <= long_new <= int(long_old * 2.0)
    if height > width:
        assert geometry.height == long_new
        assert geometry.width == int(width * long_new / height + 0.5)
    else:
        assert geometry.width == long_new
        assert geometry.height == int(height * long_new / width + 0.5)


def test_both_ends_of_the_resize_range_are_reached() -> None:
    widths = {geometry_of(seed, (8, 8)).width for seed in range(400)}

    assert widths == set(range(4, 17))


def test_a_palette_mask_keeps_its_indices() -> None:
    plain = labels(1, (40, 30))
    indexed = plain.copy()
    indexed.putpalette([channel for value in range(256) for channel in (value, 0, 255 - value)])
    geometry = Geometry(25, 19, 0, 0, CROP, is_flipped=True)

    assert np.array_equal(
        np.asarray(weak_mask(indexed, geometry)), np.asarray(weak_mask(plain, geometry))
    )


def test_brightness_contrast_and_saturation_are_pillow_s_enhancers_in_the_drawn_order() -> None:
    image = photo(3, (CROP, CROP))
    drawn = Photometry(True, (2, 0, 1, 3), 0.7, 1.4, 0.6, 0.0, False, False, 1.0)

    expected = ImageEnhance.Color(image).enhance(0.6)
    expected = ImageEnhance.Brightness(expected).enhance(0.7)
    expected = ImageEnhance.Contrast(expected).enhance(1.4)
    expected = expected.convert("HSV").convert("RGB")

    assert same(strong_image(image, drawn), expected)


@pytest.mark.parametrize("turns", [-0.25, -0.1, 0.0, 0.004, 0.2])
def test_hue_is_turned_as_torchvision_turns_pil_images(turns: float) -> None:
    image = photo(5, (CROP, CROP))
    drawn = Photometry(True, (3, 0, 1, 2), 1.0, 1.0, 1.0, turns, False, False, 1.0)

    channels = np.array(image.convert("HSV"))
    channels[..., 0] += np.array(int(turns * 255)).astype(np.uint8)  # wraps, as theirs does
    expected = Image.fromarray(channels, "HSV").convert("RGB")

    assert same(strong_image(image, drawn), expected)


def test_grey_and_blur_are_pillow_s() -> None:
    image = photo(6, (CROP, CROP))
    drawn = Photometry(False, (0, 1, 2, 3), 1.0, 1.0, 1.0, 0.0, True, True, 1.7)

    expected = ImageOps.grayscale(image).convert("RGB").filter(ImageFilter.GaussianBlur(1.7))

    assert same(strong_image(image, drawn), expected)


def test_a_view_that_drew_nothing_is_the_weak_one() -> None:
    image = photo(7, (CROP, CROP))

    assert same(strong_image(image, NOTHING), image)


def test_strong_views_are_drawn_as_often_and_as_far_as_in_unimatch() -> None:
    drawn = [draw_photometry(draws_of(seed)) for seed in range(4000)]

    assert np.mean([entry.is_jittered for entry in drawn]) == pytest.approx(0.8, abs=0.025)
    assert np.mean([entry.is_grey for entry in drawn]) == pytest.approx(0.2, abs=0.025)
    assert np.mean([entry.is_blurred for entry in drawn]) == pytest.approx(0.5, abs=0.03)
    assert len({entry.order for entry in drawn}) == 24
    for name, low, high in (
        ("brightness", 0.5, 1.5),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -0.25, 0.25),
        ("blur", 0.1, 2.0),
    ):
        values = [getattr(entry, name) for entry in drawn]
        span = high - low
        assert low <= min(values) < low + span / 100
        assert high - span / 100 < max(values) < high


def test_another_strength_moves_only_what_it_names() -> None:
    strong = StrongViewConfig(jitter=0.3, brightness=0.1, hue=0.0, blur=0.9)
    drawn = [draw_photometry(draws_of(seed), strong) for seed in range(2000)]
    usual = [draw_photometry(draws_of(seed)) for seed in range(2000)]

    assert np.mean([entry.is_jittered for entry in drawn]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([entry.is_blurred for entry in drawn]) == pytest.approx(0.9, abs=0.03)
    assert 0.9 <= min(entry.brightness for entry in drawn) < 0.901
    assert 1.099 < max(entry.brightness for entry in drawn) <= 1.1
    assert {entry.hue for entry in drawn} == {0.0}
    for name in ("order", "contrast", "saturation", "is_grey", "blur"):
        assert [getattr(entry, name) for entry in drawn] == [getattr(e, name) for e in usual]


def test_half_of_the_boxes_are_empty_and_the_others_cover_2_to_40_percent() -> None:
    crop = 100
    boxes = [draw_box(draws_of(seed), crop) for seed in range(4000)]
    areas = [box.width * box.height / crop**2 for box in boxes if box != Box()]

    assert len(areas) / 4000 == pytest.approx(0.5, abs=0.03)
    assert 0.015 < min(areas) < 0.03  # whole pixels cut a little off
    assert 0.38 < max(areas) <= 0.4
    assert np.mean(areas) == pytest.approx(0.21, abs=0.015)  # acceptance does not depend on area


def test_boxes_lie_inside_and_keep_their_ratio() -> None:
    boxes = [box for box in (draw_box(draws_of(s), 200) for s in range(800)) if box != Box()]

    for box in boxes:
        assert box.left >= 0 <= box.top
        assert box.left + box.width <= 200 >= box.top + box.height
        assert math.log(0.27) < math.log(box.height / box.width) < -math.log(0.27)


def test_holes_of_cutout_draw_their_area_anew_with_every_ratio() -> None:
    holes = [draw_box(draws_of(seed), 100, redraws_area=True) for seed in range(4000)]
    areas = [hole.width * hole.height / 100**2 for hole in holes if hole != Box()]

    assert len(areas) / 4000 == pytest.approx(0.5, abs=0.03)
    assert np.mean(areas) < 0.19  # small ones are accepted more often
    assert max(areas) <= 0.4


@given(seeds, sizes)
def test_a_second_crop_overlaps_the_first_on_the_grid_of_stride_8(
    seed: int, size: tuple[int, int]
) -> None:
    first = geometry_of(seed, size)

    second = draw_overlap(draws_of(seed + 1), first)

    across, down = second.left - first.left, second.top - first.top
    shared = (CROP - abs(across)) * (CROP - abs(down))
    assert across % 8 == down % 8 == 0
    assert abs(across) < CROP > abs(down)
    assert shared / (2 * CROP * CROP - shared) >= 0.1
    assert 0 <= second.left <= max(first.width, CROP) - CROP
    assert 0 <= second.top <= max(first.height, CROP) - CROP
    assert (second.width, second.height) == (first.width, first.height)


def sizes_of(size: tuple[int, int], rule: ScaleRule) -> list[tuple[int, int]]:
    drawn = [draw_geometry(draws_of(seed), size, crop=CROP, rule=rule) for seed in range(3000)]
    return [(geometry.width, geometry.height) for geometry in drawn]


def test_a_set_of_scales_is_drawn_evenly_and_cut_to_whole_pixels() -> None:  # CPS
    scales = (0.5, 0.75, 1.0, 1.5, 1.75, 2.0)

    found = Counter(sizes_of((101, 67), ScaleRule(factors=scales)))

    assert set(found) == {(int(101 * scale), int(67 * scale)) for scale in scales}
    assert min(found.values()) > 3000 / 6 * 0.8


def test_a_base_replaces_the_long_side_of_the_image() -> None:  # ST++: 400 on VOC
    found = sizes_of((50, 100), ScaleRule(base=400))

    assert min(height for _, height in found) in range(200, 205)
    assert max(height for _, height in found) in range(796, 801)
    assert all(width == int(height / 2 + 0.5) for width, height in found)


def test_halves_shrink_as_often_as_they_enlarge() -> None:  # U2PL
    widths = np.array([width for width, _ in sizes_of((1000, 500), ScaleRule(has_halves=True))])

    assert np.mean(widths < 1000) == pytest.approx(0.5, abs=0.03)
    assert np.mean(widths[widths < 1000]) == pytest.approx(750, abs=15)
    assert np.mean(widths[widths >= 1000]) == pytest.approx(1500, abs=30)


def test_the_default_rule_draws_as_before() -> None:
    geometry = draw_geometry(draws_of(5), (90, 60), crop=CROP, rule=ScaleRule())
    draws = draws_of(5)

    width = draws.integer(45, 180)

    height = int(60 * width / 90 + 0.5)
    left, top = (
        draws.integer(0, max(width, CROP) - CROP),
        draws.integer(0, max(height, CROP) - CROP),
    )
    assert geometry == Geometry(width, height, left, top, CROP, draws.bernoulli(0.5))
