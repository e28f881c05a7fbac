from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.augment.host import (
    ScaleRule,
    draw_geometry,
    draw_photometry,
    strong_image,
    weak_image,
    weak_mask,
)
from datasets.config import MixSource
from datasets.loading.batches import ViewPlan
from datasets.loading.samples import EpochOrder, LabelledSource, UnlabelledSource
from datasets.randomness import KeyedRandom, Stream
from tests.support.strategies import seeds
from trainer.feed import to_device

SEED = 12345


def source(dataset, config, mix: MixSource = MixSource.same, **plan) -> UnlabelledSource:
    config, ids = replace(config, mix=mix), dataset.split.unlabelled
    return UnlabelledSource(dataset.tree, ids, config, SEED, plan=ViewPlan(**plan))


def tensor(image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@given(seeds, st.integers(1, 13), st.integers(0, 40))
def test_every_pass_over_a_list_shows_each_image_once(seed: int, count: int, epoch: int) -> None:
    ids = [f"i{index}" for index in range(count)]
    order = EpochOrder(ids, seed=seed, stream=Stream.LABELLED_ORDER)

    shown = [order.at(epoch * count + place) for place in range(count)]

    assert sorted(shown) == sorted(ids)


@settings(max_examples=20)
@given(st.permutations(range(60)))
def test_positions_may_be_asked_in_any_order(positions: list[int]) -> None:
    ids = [f"i{index}" for index in range(4)]
    straight = EpochOrder(ids, seed=1, stream=Stream.LABELLED_ORDER)
    expected = [straight.at(position) for position in range(60)]

    order = EpochOrder(ids, seed=1, stream=Stream.LABELLED_ORDER)

    assert {position: order.at(position) for position in positions} == dict(enumerate(expected))


def test_a_labelled_sample_is_its_image_cropped_by_its_own_draws(dataset, config) -> None:
    batch = LabelledSource(dataset.tree, dataset.split.labelled, config, SEED).batch([6, 7], 100)

    image, mask = dataset.tree.pair(batch.ids[1])
    geometry = draw_geometry(
        KeyedRandom(SEED, Stream.LABELLED_CROP, 7),
        image.size,
        crop=32,
        rule=ScaleRule(),
    )

    assert torch.equal(batch.images[1], tensor(weak_image(image, geometry)))
    assert np.array_equal(batch.masks[1].numpy(), np.asarray(weak_mask(mask, geometry)))
    assert (batch.images.dtype, batch.masks.dtype, batch.keep.dtype) == (
        torch.uint8,
        torch.int64,
        torch.bool,
    )
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.masks.shape == (2, 32, 32)
    assert batch.keep.shape == (2, 100)


def test_an_unlabelled_sample_is_two_strong_views_of_one_weak_view(dataset, config) -> None:
    batch = source(dataset, config).batch([5], 10, batch=1)

    image = dataset.tree.image(batch.ids[0])
    geometry = draw_geometry(
        KeyedRandom(SEED, Stream.UNLABELLED_CROP, 5),
        image.size,
        crop=32,
        rule=ScaleRule(),
    )
    weak = weak_image(image, geometry)

    assert torch.equal(batch.weak[0], tensor(weak))
    for view, stream in enumerate((Stream.STRONG_1, Stream.STRONG_2)):
        expected = strong_image(weak, draw_photometry(KeyedRandom(SEED, stream, 5)))
        assert torch.equal(batch.strong[view][0], tensor(expected))


def test_unlabelled_images_may_shrink_less_than_labelled_ones(dataset, config) -> None:
    other = replace(config, unlabelled_scale_min=2.0)
    ids = dataset.split.labelled

    labelled = LabelledSource(dataset.tree, ids, other, SEED).batch(range(20), 0)
    unlabelled = source(dataset, other).batch(range(20), 0, batch=20)

    before = LabelledSource(dataset.tree, ids, config, SEED).batch(range(20), 0)
    assert torch.equal(labelled.images, before.images)
    assert not unlabelled.padded.any()  # twice as large as on disk, so larger than the crop


def test_padding_is_black_and_marked(dataset, config) -> None:
    batch = source(dataset, config).batch(range(40), 0, batch=40)

    marked = batch.padded[:, None].expand(-1, 3, -1, -1)

    assert batch.padded.any()
    assert not batch.padded.flatten(1).all(dim=1).any()
    assert (batch.weak[marked] == 0).all()


def test_the_same_photograph_is_mixed_under_another_crop(dataset, config) -> None:
    batch = source(dataset, config).batch(range(12), 0, batch=12)

    assert batch.mix_ids == batch.ids
    assert not torch.equal(batch.mix_weak, batch.weak)


def test_the_rolled_batch_is_mixed_with_its_neighbour(dataset, config) -> None:
    batch = source(dataset, config, MixSource.batch_roll).batch(range(12, 18), 0, batch=6)

    assert batch.mix_ids == (*batch.ids[1:], batch.ids[0])
    assert torch.equal(batch.mix_weak, batch.weak.roll(-1, dims=0))
    assert torch.equal(batch.mix_padded, batch.padded.roll(-1, dims=0))
    assert torch.equal(batch.mix_strong[1], batch.strong[1].roll(-1, dims=0))


def test_other_images_are_mixed_from_a_list_shuffled_on_its_own(dataset, config) -> None:
    batch = source(dataset, config, MixSource.other).batch(range(60), 0, batch=60)

    assert Counter(batch.mix_ids) == Counter(batch.ids)  # ten passes over both
    assert 0 < sum(a == b for a, b in zip(batch.ids, batch.mix_ids, strict=True)) < 40


def test_where_a_box_is_empty_the_partner_stays_weak_and_else_it_is_strong(dataset, config) -> None:
    batch = source(dataset, config).batch(range(30), 0, batch=30)

    for view, stream in enumerate((Stream.MIX_STRONG_1, Stream.MIX_STRONG_2)):
        for position in range(30):
            drawn = draw_photometry(KeyedRandom(SEED, stream, position))
            plain = not (drawn.is_jittered or drawn.is_grey or drawn.is_blurred)
            same = torch.equal(batch.mix_strong[view][position], batch.mix_weak[position])
            assert same is (plain or not batch.boxes[view][position].any().item())


def test_half_of_the_boxes_are_empty(dataset, config) -> None:
    boxes = source(dataset, config).batch(range(300), 0, batch=300).boxes

    for view in boxes:
        assert view.flatten(1).any(dim=1).float().mean() == pytest.approx(0.5, abs=0.1)
    assert not torch.equal(*boxes)


def test_channel_bits_are_fair_and_differ_between_the_two_halves(dataset, config) -> None:
    labelled = LabelledSource(dataset.tree, dataset.split.labelled, config, SEED).batch([3], 4000)
    unlabelled = source(dataset, config).batch([3], 4000, batch=1)

    assert labelled.keep.float().mean() == pytest.approx(0.5, abs=0.04)
    assert (labelled.keep == unlabelled.keep).float().mean() == pytest.approx(0.5, abs=0.04)


def test_another_plan_leaves_the_views_that_both_name_as_they_are(dataset, config) -> None:
    both = source(dataset, config).batch(range(6), 5, batch=6)
    more = {"has_overlap": True, "labelled_strong": True, "numbers": 2}

    plan = source(dataset, config, strong=1, boxes=1, **more).batch(range(6), 5, batch=6)

    assert torch.equal(plan.weak, both.weak)
    assert torch.equal(plan.keep, both.keep)
    for one, two in ((plan.strong, both.strong), (plan.mix_strong, both.mix_strong)):
        assert len(one) == 1
        assert torch.equal(one[0], two[0])
    assert len(plan.boxes) == 1
    assert torch.equal(plan.boxes[0], both.boxes[0])


def test_what_a_plan_does_not_name_is_not_there(dataset, config) -> None:
    batch = source(dataset, config, strong=0, boxes=0, has_partner=False).batch([1], 0, batch=1)

    assert batch.strong == batch.boxes == batch.mix_strong == batch.holes == batch.mix_ids == ()
    assert batch.mix_weak.numel() == batch.mix_padded.numel() == batch.numbers.numel() == 0
    assert batch.second is None


def test_two_crops_agree_where_they_overlap(dataset, config) -> None:
    plan = {"strong": 1, "boxes": 0, "has_partner": False, "has_overlap": True}
    batch = source(dataset, config, **plan).batch(range(24), 0, batch=24)
    second, shared = batch.second, 0
    assert second is not None

    for index, (across, down) in enumerate(second.shift.tolist()):
        weak = [batch.weak[index], second.weak[index]]
        padded = [batch.padded[index], second.padded[index]]
        for which, mirrored in enumerate(second.mirrored[index].tolist()):
            if mirrored:
                weak[which], padded[which] = weak[which].flip(-1), padded[which].flip(-1)
        ours = (slice(max(down, 0), 32 + min(down, 0)), slice(max(across, 0), 32 + min(across, 0)))
        theirs = tuple(
            slice(s.start - d, s.stop - d) for s, d in zip(ours, (down, across), strict=True)
        )
        assert torch.equal(weak[0][:, *ours], weak[1][:, *theirs])
        assert torch.equal(padded[0][ours], padded[1][theirs])
        shared += across != 0 or down != 0

    assert shared > 12
    assert 0.2 < second.mirrored.float().mean() < 0.8
    assert not torch.equal(second.strong, second.weak)


def test_numbers_are_even_keyed_by_position_and_other_for_labelled_images(dataset, config) -> None:
    numbers = source(dataset, config, numbers=3).batch(range(60), 0, batch=60).numbers
    alone = source(dataset, config, numbers=2).batch([7], 0, batch=60).numbers
    ids, plan = dataset.split.labelled, ViewPlan(numbers=3)
    labelled = (
        LabelledSource(dataset.tree, ids, config, SEED, plan=plan).batch(range(60), 0).numbers
    )

    assert (numbers.dtype, numbers.shape) == (torch.float64, (60, 3))
    assert 0.0 <= numbers.min() < 0.05 < 0.95 < numbers.max() < 1.0
    assert torch.equal(alone[0], numbers[7, :2])
    assert not (labelled == numbers).any()


def test_the_unlabelled_and_the_labelled_order_are_independent(dataset, config) -> None:
    ids = dataset.split.unlabelled
    labelled = LabelledSource(dataset.tree, ids, config, SEED).batch(range(18), 0)
    unlabelled = source(dataset, config).batch(range(18), 0, batch=18)

    assert labelled.ids != unlabelled.ids


def test_a_batch_moves_as_one(dataset, config) -> None:
    batch = source(dataset, config).batch(range(2), 8, batch=2)

    moved = to_device(batch, torch.device("meta"))

    assert moved.weak.device.type == moved.boxes[1].device.type == "meta"
    assert moved.ids == batch.ids


def test_windows_move_with_all_that_is_in_them(dataset, config) -> None:
    windows = source(dataset, config).windows(range(3), 8, batch=3)

    moved = to_device(windows, torch.device("meta"))

    devices = {
        part.device.type
        for part in (moved.windows.pixels, moved.stages.order, moved.draws.boxes, moved.draws.keep)
    }
    assert devices == {"meta"}
    assert (moved.draws.ids, moved.stages.sizes) == (windows.draws.ids, windows.stages.sizes)


def test_windows_hold_no_more_than_the_crops_need(dataset, config) -> None:
    windows = source(dataset, config).windows(range(4), 8, batch=4).windows

    assert windows.pixels.dtype == torch.uint8
    assert windows.pixels.shape[1] <= 40  # pixels of a scene
    assert windows.pixels.shape[2] <= 56
    assert windows.columns.shape == windows.rows.shape == (6, 8)  # numbers an axis, not tables
