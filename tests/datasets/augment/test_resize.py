import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from datasets.augment.resize import is_upright, nearest, resized_window, span
from tests.support.strategies import photo

lengths = st.integers(3, 90)
BILINEAR, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST


@given(lengths, lengths, lengths, lengths, st.integers(0, 2**40))
@example(20, 88, 20, 44, 7)  # tall and shrinking: the height goes first
def test_a_window_has_the_bytes_of_the_whole_image_resized(
    width: int, height: int, new_width: int, new_height: int, seed: int
) -> None:
    image = photo(seed, (width, height))
    box = window_of(seed, new_width, new_height)
    top, bottom = span(height, new_height, start=box[1], stop=box[3])
    band = image.crop((0, top, width, bottom))

    window = resized_window(band, top, height, size=(new_width, new_height), box=box)

    expected = image.resize((new_width, new_height), BILINEAR).crop(box)
    assert np.array_equal(np.asarray(window), np.asarray(expected))


def window_of(seed: int, width: int, height: int) -> tuple[int, int, int, int]:
    left, top = seed % width, (seed // 97) % height
    right = left + 1 + (seed // 7) % (width - left)
    return left, top, right, top + 1 + (seed // 13) % (height - top)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_nearest_picks_the_pixels_pillow_picks(source: int, resized: int) -> None:
    ramp = np.arange(source, dtype=np.int32)
    expected = np.asarray(Image.fromarray(ramp[None]).resize((resized, 1), NEAREST))[0]

    assert np.array_equal(nearest(source, resized, start=0, crop=resized + 5), expected)
    start = resized // 3
    part = nearest(source, resized, start=start, crop=7)
    assert np.array_equal(part, expected[start : start + 7])


@given(lengths, lengths, lengths, lengths)
def test_pillow_still_takes_its_two_passes_in_the_order_we_fixed(
    width: int, height: int, new_width: int, new_height: int
) -> None:
    """When a new Pillow fails here, our bits stay; only the comparison with it is off."""
    image, size = photo(3, (width, height)), (new_width, new_height)
    upright = image.resize((width, new_height), BILINEAR).resize(size, BILINEAR)
    across = image.resize((new_width, height), BILINEAR).resize(size, BILINEAR)

    expected = upright if is_upright(image.size, size) else across

    assert np.array_equal(np.asarray(image.resize(size, BILINEAR)), np.asarray(expected))


@pytest.mark.parametrize(("size", "expected"), [((500, 375), False), ((100, 230), True)])
def test_only_very_tall_images_shrink_their_height_first(
    size: tuple[int, int], expected: bool
) -> None:
    assert is_upright(size, (size[0] // 2, size[1] // 2)) is expected
