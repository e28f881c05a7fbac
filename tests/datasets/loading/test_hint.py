"""What a hint changes in batches: the choice of partners, and what is pasted into labelled ones."""

from collections import Counter
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.augment.host import ScaleRule, draw_geometry, weak_image, weak_mask
from datasets.images.tree import Item, Kind
from datasets.loading.batches import ViewPlan
from datasets.loading.device import labelled_batch, unlabelled_batch
from datasets.loading.hint import Hint, draw_class, draw_partner, draw_paste
from datasets.loading.loader import BatchPlan, batches
from datasets.loading.samples import LabelledSource, UnlabelledSource
from datasets.loading.shared_memory import _pasted_everywhere, largest_bytes
from datasets.randomness import KeyedRandom, Stream

SEED = 12345
VIEWS = ViewPlan(strong=1, boxes=1, chosen_partner=True, labelled_strong=True, pasted_classes=2)
# Of six unlabelled images: class 0 is in two of them, class 1 in one, the others in none.
PRESENCE = torch.zeros(5, 6, dtype=torch.bool)
PRESENCE[0, [1, 4]] = PRESENCE[1, 3] = True
HINT = Hint(torch.tensor([0.5, 0.3, 0.2, 0.0, 0.0]), torch.full((5,), 0.2), PRESENCE)
PLAN = BatchPlan(batch=5, stop=4, views=VIEWS, hint=HINT)


def parts(value: Any) -> list[Any]:
    """Everything in a batch, tensors as type, shape and bytes."""
    if isinstance(value, Tensor):
        return [value.dtype, value.shape, value.contiguous().numpy().tobytes()]
    if hasattr(value, "__dataclass_fields__"):
        return [part for entry in fields(value) for part in parts(getattr(value, entry.name))]
    if isinstance(value, tuple):
        return [part for entry in value for part in parts(entry)]
    return [value]


def loaded(dataset, config, **changes) -> list[list[Any]]:
    stream = batches(dataset, config, seed=SEED, plan=replace(PLAN, **changes))
    return [parts((labelled_batch(x), unlabelled_batch(u))) for x, u in stream]


def joined(dataset, config, world_size: int) -> list[list[tuple[Any, ...]]]:
    """Per step, ids, partners, places, pixels and masks of all ranks, slots in order."""
    steps: list[list[tuple[Any, ...]]] = [[] for _ in range(PLAN.stop)]
    for rank in range(world_size):
        plan = replace(PLAN, rank=rank, world_size=world_size)
        for slots, (x, u) in zip(
            steps, batches(dataset, config, seed=SEED, plan=plan), strict=True
        ):
            tensors = (x.images, x.masks, u.weak, u.mix_weak, u.chosen.places, u.chosen.classes)
            for slot, names in enumerate(zip(x.ids, u.ids, u.mix_ids, strict=True)):
                slots.append((*names, *(tensor[slot].numpy().tobytes() for tensor in tensors)))
    return steps


@pytest.mark.parametrize("changes", [{"workers": 2}, {"on_device": True}], ids=str)
def test_neither_workers_nor_the_device_change_a_byte(dataset, config, changes) -> None:
    assert loaded(dataset, config, **changes) == loaded(dataset, config)


def test_any_step_can_be_the_first(dataset, config) -> None:
    assert loaded(dataset, config, start=2) == loaded(dataset, config)[2:]


def test_ranks_share_out_the_same_batches(dataset, config) -> None:
    assert joined(dataset, config, 3) == joined(dataset, config, 1)


def test_another_hint_gives_other_batches(dataset, config) -> None:
    other = replace(HINT, partner=HINT.partner.flip(0), pasted=torch.eye(5)[1])

    assert loaded(dataset, config, hint=other) != loaded(dataset, config)


def test_a_class_is_drawn_as_often_as_its_probability_says() -> None:
    draws = KeyedRandom(1, Stream.MIX_CHOICE, 0)
    probabilities = torch.tensor([0.0, 0.7, 0.0, 0.3])

    counts = Counter(draw_class(draws, probabilities) for _ in range(4000))

    assert set(counts) == {1, 3}
    assert counts[1] / 4000 == pytest.approx(0.7, abs=0.03)


def test_a_partner_shows_the_class_that_was_drawn_or_is_any_image() -> None:
    drawn = [
        draw_partner(KeyedRandom(1, Stream.MIX_CHOICE, place), HINT, 6) for place in range(900)
    ]

    places = {wanted: Counter(place for k, place in drawn if k == wanted) for wanted in range(5)}
    assert set(places[0]) == {1, 4}
    assert places[0][1] == pytest.approx(places[0][4], rel=0.3)
    assert set(places[1]) == {3}
    assert set(places[2]) == set(range(6))
    assert not places[3]
    assert not places[4]


def test_a_batch_says_which_class_was_wanted_and_where_images_stand(dataset, config) -> None:
    ids = dataset.split.unlabelled
    source = UnlabelledSource(dataset.tree, ids, config, SEED, plan=VIEWS, hint=HINT)

    batch = source.batch(range(30), 0, batch=30)

    chosen = batch.chosen
    assert [ids[place] for place in chosen.places.tolist()] == list(batch.ids)
    assert [ids[place] for place in chosen.mix_places.tolist()] == list(batch.mix_ids)
    assert set(chosen.mix_places[chosen.classes == 1].tolist()) == {3}


def test_half_of_the_labelled_images_show_classes_of_another_one(dataset, config) -> None:
    ids, plan = dataset.split.labelled, replace(VIEWS, labelled_strong=False)
    plain = LabelledSource(dataset.tree, ids, config, SEED, plan=replace(plan, pasted_classes=0))
    source = LabelledSource(dataset.tree, ids, config, SEED, plan=plan, hint=HINT)
    before, after = plain.batch(range(60), 0), source.batch(range(60), 0)
    num_pasted, smallest = 0, 1.0

    for slot in range(60):
        choice = draw_paste(HINT, SEED, slot, num_images=len(ids), num_classes=2)
        image, mask = before.images[slot].numpy(), before.masks[slot].numpy()
        if choice is not None:
            pair = dataset.tree.pair(ids[choice.place])
            draws = KeyedRandom(SEED, Stream.PASTE_CROP, slot)
            low, high = choice.scales
            size = pair[0].size
            geometry = draw_geometry(draws, size, crop=32, rule=ScaleRule(low, high))
            other = weak_mask(pair[1], geometry)
            inside = np.isin(other, choice.classes)
            pasted = np.asarray(weak_image(pair[0], geometry)).transpose(2, 0, 1)
            image, mask = np.where(inside, pasted, image), np.where(inside, other, mask)
            num_pasted += 1
            smallest = min(smallest, geometry.width / size[0])
        assert np.array_equal(after.images[slot].numpy(), image)
        assert np.array_equal(after.masks[slot].numpy(), mask)

    assert 20 < num_pasted < 40
    assert smallest < 0.3
    assert not torch.equal(before.images, after.images)


def test_what_is_read_was_announced(dataset, config) -> None:
    notes: list[tuple[str, str]] = []

    class Listening:
        def item(self, kind: Kind, name: str) -> Item:
            notes.append(("read", name))
            return dataset.tree.item(kind, name)

        def prefetch(self, wanted) -> None:
            notes.extend(("soon", name) for _, name in wanted)

    tree = replace(dataset.tree, store=Listening())
    announced: set[str] = set()
    stream = batches(replace(dataset, tree=tree), config, seed=SEED, plan=PLAN)
    for step, _ in enumerate(stream):
        read = {name for kind, name in notes if kind == "read"}
        assert step == 0 or read == announced
        announced = {name for kind, name in notes if kind == "soon"}
        notes.clear()


def test_shared_memory_is_asked_for_pastes_into_every_image(dataset, config) -> None:
    plan = replace(PLAN, on_device=True, stop=12)
    steps = list(batches(dataset, config, seed=SEED, plan=plan))

    said = largest_bytes(_pasted_everywhere(steps[0][0]), config)

    taken = [sum(len(part) for part in parts(x) if isinstance(part, bytes)) for x, _ in steps]
    assert max(taken) <= said
    assert min(taken) < max(taken)


def test_views_that_need_a_hint_are_refused_without_one(dataset, config) -> None:
    with pytest.raises(ValueError, match=r"a hint chooses, and there is none; `Method\.hint`"):
        batches(dataset, config, seed=SEED, plan=replace(PLAN, hint=None))
