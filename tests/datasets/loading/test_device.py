from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from datasets.augment.device_inputs import OPERATIONS, Axis, stages_of, windows_of
from datasets.augment.host import (
    BoxRule,
    ScaleRule,
    draw_geometry,
    draw_photometry,
    padded_map,
    strong_image,
    weak_image,
)
from datasets.augment.resize import filter_width, span
from datasets.config import MixSource, StrongViewConfig
from datasets.dataset import open_dataset
from datasets.loading.batches import SecondCrop, ViewPlan
from datasets.loading.device import (
    WEIGHT_BITS,
    is_padding,
    labelled_batch,
    padding,
    resample_weights,
    strong_views,
    unlabelled_batch,
    weak_views,
)
from datasets.loading.loader import BatchPlan, batches
from datasets.randomness import KeyedRandom, Stream
from tests.support.strategies import photo, seeds
from tests.support.tiny_config import tiny_config
from trainer.feed import to_device

lengths = st.integers(3, 90)


def tables(axes: list[Axis], crop: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """First pixels (V, S) and weights (V, K, S)."""
    depth = max(filter_width(axis.source, axis.resized) for axis in axes)
    made = resample_weights(torch.tensor(axes).T, crop=crop, depth=depth)
    return made.first.numpy(), made.weights.numpy()


@given(lengths, lengths, st.integers(0, 2**40))
def test_the_tables_resize_as_pillow_does(source: int, resized: int, seed: int) -> None:
    start = seed % resized
    pixels = np.asarray(photo(seed, (source, 1)))[0, :, 0]
    plain = Axis(source, resized, start, min(50, resized - start), 0, False)
    # Beside an axis of more weights, and itself mirrored.
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


CROP = 40
CUDA_REFUSES = ("index_put", "index_add", "index_copy", "scatter", "put_", "cumsum", "histc")
WAITS = ("nonzero", "_local_scalar_dense", "masked_select", "unique")


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@given(seeds)
def test_weak_views_are_those_of_the_host(seed: int) -> None:
    draws = KeyedRandom(seed, Stream.DRAWING)
    sizes = [(draws.integer(4, 110), draws.integer(4, 110)) for _ in range(4)]
    photos = [photo(seed + place, size) for place, size in enumerate(sizes)]
    geometries = [draw_geometry(draws, size, crop=CROP, rule=ScaleRule()) for size in sizes]

    windows = windows_of([photos[0], *(np.asarray(image) for image in photos[1:])], geometries)

    expected = [tensor(weak_image(*pair)) for pair in zip(photos, geometries, strict=True)]
    assert torch.equal(weak_views(windows), torch.stack(expected))
    padded = np.stack([padded_map(geometry) for geometry in geometries])
    assert np.array_equal(padding(windows).numpy(), padded)


@pytest.mark.parametrize("start", range(0, 3000, 500))
def test_three_thousand_drawn_strong_views_are_pillow_s(start: int) -> None:
    for place in range(start, start + 500, 20):
        # Noise, then few colours in large patches, whose ties and greys noise does not have.
        images = [photo(place + view, (CROP, CROP)) for view in range(20)]
        images[::3] = [image.resize((CROP, CROP), 0, (0, 0, 6, 6)) for image in images[::3]]
        drawn = [draw_photometry(KeyedRandom(place, Stream.STRONG_1, view)) for view in range(20)]

        made = strong_views(torch.stack([tensor(image) for image in images]), stages_of(drawn))

        expected = [tensor(strong_image(*pair)) for pair in zip(images, drawn, strict=True)]
        assert torch.equal(made, torch.stack(expected))


def test_views_as_strong_as_can_be_set_are_pillow_s() -> None:
    farthest = StrongViewConfig(
        jitter=1.0, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5, grey=0.0, blur=1.0
    )
    images = [photo(view, (CROP, CROP)) for view in range(200)]
    drawn = [
        draw_photometry(KeyedRandom(view, Stream.STRONG_1, 0), farthest) for view in range(200)
    ]

    made = strong_views(torch.stack([tensor(image) for image in images]), stages_of(drawn))

    assert max(entry.brightness for entry in drawn) > 1.9
    assert max(entry.hue for entry in drawn) > 0.4
    expected = [tensor(strong_image(*pair)) for pair in zip(images, drawn, strict=True)]
    assert torch.equal(made, torch.stack(expected))


def test_views_that_drew_nothing_pass_through_their_stages() -> None:
    images = torch.stack([tensor(photo(seed, (CROP, CROP))) for seed in range(3)])
    drawn = [None, draw_photometry(KeyedRandom(1, Stream.STRONG_1, 0)), None]

    made = strong_views(images, stages_of(drawn))

    assert torch.equal(made[::2], images[::2])
    assert not torch.equal(made[1], images[1])


def test_pixels_at_the_edge_of_bytes_are_cut_as_pillow_cuts_them() -> None:
    extremes = np.array([0, 1, 2, 127, 128, 253, 254, 255], np.uint8)
    grid = np.stack(np.meshgrid(extremes, extremes, extremes), axis=-1).reshape(8, 64, 3)
    image = Image.fromarray(np.repeat(grid, 8, axis=0))
    drawn = [draw_photometry(KeyedRandom(2, Stream.STRONG_2, view)) for view in range(60)]
    drawn += [
        replace(entry, is_jittered=True, is_blurred=False, brightness=factor, contrast=factor)
        for factor in (0.5, 1.0, 1.4999999)
        for entry in drawn[:5]
    ]

    made = strong_views(torch.stack([tensor(image)] * len(drawn)), stages_of(drawn))

    expected = [tensor(strong_image(image, entry)) for entry in drawn]
    assert torch.equal(made, torch.stack(expected))


def test_a_thousand_blurs_are_pillow_s() -> None:
    image = photo(9, (33, 31))
    template = draw_photometry(KeyedRandom(0, Stream.STRONG_1, 0))
    template = replace(template, is_jittered=False, is_grey=False, is_blurred=True)
    sigmas = [*np.linspace(0.1, 2.0, 999).tolist(), 1.4142135623730951]
    drawn = [replace(template, blur=sigma) for sigma in sigmas]

    made = strong_views(tensor(image).expand(len(drawn), -1, -1, -1), stages_of(drawn))

    expected = [tensor(strong_image(image, entry)) for entry in drawn]
    assert torch.equal(made, torch.stack(expected))


def test_the_colours_of_a_strided_cube_turn_as_pillow_turns_them() -> None:
    # Every 7th of the 16.7 million colours: all residues of every channel come up.
    colours = np.arange(0, 1 << 24, 7, dtype=np.uint32)[: 1548 * 1548]
    pixels = colours.view(np.uint8).reshape(-1, 4)[:, :3].reshape(1548, 1548, 3)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    template = draw_photometry(KeyedRandom(0, Stream.STRONG_1, 0))
    one = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0}
    off = {"is_jittered": True, "is_grey": False, "is_blurred": False}
    for turns in (0.0, 0.2499, -0.25, 0.101):
        drawn = replace(template, hue=turns, order=(0, 1, 2, 3), **one, **off)
        hue, saturation, value = image.convert("HSV").split()
        turned = hue.point([(entry + int(turns * 255)) % 256 for entry in range(256)])
        expected = Image.merge("HSV", (turned, saturation, value)).convert("RGB")

        made = strong_views(tensor(image)[None], stages_of([drawn]))

        assert torch.equal(made[0], tensor(expected))


EVERYTHING = ViewPlan(has_holes=True, has_overlap=True, labelled_strong=True, numbers=3)
PLANS = [
    EVERYTHING,
    ViewPlan(strong=1, boxes=1, box_rule=BoxRule.half, channel_bits=False),
    ViewPlan(strong=0, boxes=1, box_rule=BoxRule.three),
    ViewPlan(strong=1, boxes=0, has_partner=False, has_holes=True),
    ViewPlan(strong=0, boxes=0, has_partner=False, numbers=1),
]


@pytest.mark.parametrize("mix", [MixSource.same, MixSource.batch_roll])
@pytest.mark.parametrize("plan", PLANS)
def test_any_plan_gives_the_same_bytes_on_the_device(
    drawn_root: Path, mix: MixSource, plan: ViewPlan
) -> None:
    config = replace(tiny_config(drawn_root).data, mix=mix)
    dataset = open_dataset(config)
    host = BatchPlan(batch=4, stop=3, num_channel_bits=9, views=plan)

    made = batches(dataset, config, seed=4, plan=replace(host, on_device=True))

    for (labelled, unlabelled), (first, second) in zip(
        batches(dataset, config, seed=4, plan=host), made, strict=True
    ):
        assert contents(labelled_batch(first)) == contents(labelled)
        assert contents(unlabelled_batch(second)) == contents(unlabelled)


@pytest.mark.parametrize("is_strong", [True, False])
def test_the_strength_of_views_counts_on_the_host_and_on_the_device(
    drawn_root: Path, is_strong: bool
) -> None:
    share = 1.0 if is_strong else 0.0
    strong = StrongViewConfig(jitter=0.0, grey=share, blur=share, cutmix=share)
    config = replace(tiny_config(drawn_root).data, strong=strong)
    dataset = open_dataset(config)
    host = BatchPlan(batch=4, stop=3, num_channel_bits=9, views=EVERYTHING)
    made = batches(dataset, config, seed=4, plan=replace(host, on_device=True))

    for (labelled, unlabelled), (first, second) in zip(
        batches(dataset, config, seed=4, plan=host), made, strict=True
    ):
        assert contents(labelled_batch(first)) == contents(labelled)
        assert contents(unlabelled_batch(second)) == contents(unlabelled)
        assert all(boxes.any(2).any(1).all() == is_strong for boxes in unlabelled.boxes)
        for strong_view, weak in (
            (labelled.strong, labelled.images),
            (unlabelled.second.strong, unlabelled.second.weak),
        ):
            assert torch.equal(strong_view, weak) != is_strong
            assert torch.equal(strong_view[:, :1].expand(-1, 3, -1, -1), strong_view) == is_strong


@pytest.mark.parametrize("mix", list(MixSource))
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_made_on_the_device_equal_those_of_the_host(
    drawn_root: Path, mix: MixSource, workers: int
) -> None:
    config = replace(tiny_config(drawn_root).data, mix=mix)
    dataset = open_dataset(config)
    plan = BatchPlan(batch=5, world_size=2, rank=1, stop=6, num_channel_bits=30, workers=workers)
    on_device = replace(plan, on_device=True)

    made = batches(dataset, config, seed=4, plan=on_device)

    for (labelled, unlabelled), (first, second) in zip(
        batches(dataset, config, seed=4, plan=plan), made, strict=True
    ):
        assert contents(labelled_batch(first)) == contents(labelled)
        assert contents(unlabelled_batch(second)) == contents(unlabelled)


def contents(batch: Any) -> list[tuple[str, Any]]:
    """Everything in a batch, tensors as type, shape and bytes."""
    parts = []
    for entry in fields(batch):
        value = getattr(batch, entry.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, SecondCrop):
                part = contents(part)
            if isinstance(part, Tensor):
                part = (part.dtype, part.shape, part.contiguous().numpy().tobytes())
            parts.append((entry.name, part))
    return parts


class Recorder(TorchDispatchMode):
    """Names of the operations that reach the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.seen.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_no_operation_waits_for_the_device_or_is_refused_by_it(drawn_root: Path) -> None:
    config = tiny_config(drawn_root).data
    plan = BatchPlan(batch=15, stop=1, on_device=True, views=EVERYTHING)
    _, unlabelled = next(iter(batches(open_dataset(config), config, seed=1, plan=plan)))
    used = np.array(unlabelled.stages.sizes).sum(axis=0)
    assert (used > 0).all(), dict(zip(OPERATIONS, used, strict=True))

    with Recorder() as recorder:
        unlabelled_batch(unlabelled)

    bad = [name for name in recorder.seen for word in CUDA_REFUSES + WAITS if name.startswith(word)]
    assert "gather" in recorder.seen
    assert bad == []


def test_the_device_of_this_machine_makes_the_bytes_of_the_host(drawn_root: Path) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    host = torch.device("cpu")
    config = tiny_config(drawn_root).data
    dataset, plan = open_dataset(config), BatchPlan(batch=15, stop=4)
    made = batches(dataset, config, seed=1, plan=replace(plan, on_device=True))

    for (labelled, unlabelled), (first, second) in zip(
        batches(dataset, config, seed=1, plan=plan), made, strict=True
    ):
        assert contents(to_device(labelled_batch(to_device(first, device)), host)) == contents(
            labelled
        )
        assert contents(to_device(unlabelled_batch(to_device(second, device)), host)) == contents(
            unlabelled
        )
