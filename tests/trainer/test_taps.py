import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from datasets.augment.device_inputs import Axis
from datasets.augment.resize import span, tap_depth
from datasets.loading.device import WEIGHT_BITS, is_padding, taps
from tests.datasets.strategies import photo

lengths = st.integers(3, 90)


def tables(axes: list[Axis], crop: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """First pixels (V, S) and weights (V, K, S)."""
    depth = max(tap_depth(axis.source, axis.resized) for axis in axes)
    made = taps(torch.tensor(axes).T, crop=crop, depth=depth)
    return made.first.numpy(), made.weights.numpy()


@given(lengths, lengths, st.integers(0, 2**40))
def test_the_tables_resize_as_pillow_does(source: int, resized: int, seed: int) -> None:
    start = seed % resized
    pixels = np.asarray(photo(seed, (source, 1)))[0, :, 0]
    plain = Axis(source, resized, start, min(50, resized - start), 0, False)
    # Beside an axis of more taps, and itself mirrored.
    axes = [plain, plain._replace(source=9 * resized), plain._replace(is_mirrored=True)]

    first, weights = tables(axes, 50)

    total = np.full(50, 1 << (WEIGHT_BITS - 1), np.int64)
    for step, row in enumerate(weights[0]):
        total += pixels[np.minimum(first[0] + step, source - 1)].astype(np.int64) * row
    whole = Image.fromarray(pixels[None]).resize((resized, 1), Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[0, start : start + 50]
    assert np.array_equal((total >> WEIGHT_BITS)[: len(expected)], expected)
    assert np.array_equal(weights[2], weights[0, :, ::-1])
    assert np.array_equal(first[2], first[0, ::-1])


@given(lengths, lengths, st.integers(0, 2**40))
def test_weights_are_zero_exactly_on_padding(source: int, resized: int, seed: int) -> None:
    start = seed % resized
    axis = Axis(source, resized, start, min(50, resized - start), 0, bool(seed % 2))

    _, weights = tables([axis], 50)

    shown = np.arange(50) < axis.shown
    shown = shown[::-1] if axis.is_mirrored else shown
    assert np.array_equal(weights[0].any(axis=0), shown)
    assert np.array_equal(is_padding(torch.tensor([axis]).T, 50)[0].numpy(), ~shown)


@given(lengths, lengths, st.integers(0, 2**40))
def test_a_span_holds_every_pixel_that_has_weight(source: int, resized: int, seed: int) -> None:
    start = seed % resized
    stop = start + 1 + (seed // 11) % (resized - start)

    made, weights = tables([Axis(source, resized, start, stop - start, 0, False)], stop - start)

    used = (made[0] + np.arange(weights.shape[1])[:, None])[weights[0] != 0]
    first, beyond = span(source, resized, start=start, stop=stop)
    assert first <= used.min() <= used.max() < beyond <= source
