import numpy as np
import pytest
from PIL import Image

from datasets.augment.hue import (
    WHEEL_BITS,
    hsv_to_rgb_table,
    hue_shift,
    hues,
    saturations,
    shift_hue,
)

# All 16.7 million colours take ten seconds; a stride that is odd and prime visits all channels'
# values and all their pairs. Set it to 1 to see them all.
STRIDE = 11


def colours(mode: str) -> Image.Image:
    """A cube of colours, every STRIDE-th, as one row of pixels."""
    flat = np.arange(0, 1 << 24, STRIDE, dtype=np.uint32).view(np.uint8).reshape(1, -1, 4)
    image = Image.fromarray(np.ascontiguousarray(flat[..., :3]))
    return Image.frombytes(mode, image.size, image.tobytes())


def test_the_tables_into_hsv_are_pillow_s() -> None:
    image = colours("RGB")
    rgb = np.asarray(image)[0].astype(np.int64)
    red, green, blue = rgb.T
    largest, spread = rgb.max(axis=1), rgb.max(axis=1) - rgb.min(axis=1)
    k = rgb.argmax(axis=1)  # the first of equals
    difference = np.choose(k, (green - blue, blue - red, red - green))

    hsv = np.stack(
        [
            hues()[(511 * k + difference + 255) * 256 + spread],
            saturations()[256 * largest + spread],
            largest,
        ],
        axis=1,
    )

    assert np.array_equal(hsv, np.asarray(image.convert("HSV"))[0])


def test_the_wheel_back_is_pillow_s() -> None:
    image = colours("HSV")
    hue, saturation, value = np.asarray(image)[0].astype(np.uint32).T

    weighted = hsv_to_rgb_table()[256 * hue + saturation] * value[:, None]
    rgb = (weighted + np.uint32(1 << (WHEEL_BITS - 1))) >> np.uint32(WHEEL_BITS)

    assert np.array_equal(rgb, np.asarray(image.convert("RGB"))[0])


@pytest.mark.parametrize("shift", [0, 1, 63, 128, 192, 255])
def test_turning_is_pillow_s_round_trip(shift: int) -> None:
    image = colours("RGB").crop((0, 0, 400_000, 1))
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(entry + shift) % 256 for entry in range(256)])

    expected = Image.merge("HSV", (hue, saturation, value)).convert("RGB")

    assert np.array_equal(np.asarray(shift_hue(image, shift)), np.asarray(expected))


@pytest.mark.parametrize(
    ("turns", "shift"), [(0.0, 0), (0.25, 63), (-0.25, 193), (0.0039, 0), (-0.0039, 0)]
)
def test_a_shift_is_cut_towards_zero_and_wraps(turns: float, shift: int) -> None:
    assert hue_shift(turns) == shift
