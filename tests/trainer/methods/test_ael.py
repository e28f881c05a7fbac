"""AEL against a plain transcription of its paper and code, in float64, and its memory."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from benchmarks.official_step import inter_pixel, paste
from datasets.augment.boxes import uniform_noise
from datasets.dataset import open_dataset
from datasets.loading.hint import Hint
from datasets.loading.loader import BatchPlan, batches
from tests.support.recording_ranks import Run
from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import in_pieces, straight
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.methods.ael import _renewed
from trainer.methods.interface import MethodContext, new_method
from trainer.network.deeplab import normalise
from trainer.run import train
from trainer.state import new_state

ALONE = Ranks(0, 1, torch.device("cpu"))
EPOCH = 3  # steps
SHORT = ("method=ael", "loss=kl", "evaluation.every_epochs=3", "method.ema_decay=0.9")
QUICK = tuple(
    f"method.ael.{word}"
    for word in ("decay=0.8", "component_area=0.02", "presence_area=0.1", "pasted_classes=2")
)
Nets = dict[str, Any]
Pair = tuple[Tensor, Tensor, Tensor]  # student, teacher, valid
Bank = dict[str, Tensor]
StepOf = Callable[[Nets, Any, Any, TrainConfig, Bank], tuple[Tensor, dict[str, Pair]]]


def teach(nets: Nets, images: Tensor) -> Tensor:
    with torch.no_grad():
        return nets["teacher"].train()(normalise(images))


def component_box(seen: Tensor, least: float, key: Tensor) -> Tensor | None:
    """Around the component whose last pixel has the largest number."""
    numbers, count = ndimage.label(seen.numpy(), np.ones((3, 3)))
    order = uniform_noise(key[None], torch.Size((1, 1, *seen.shape))).flatten()
    best, box = -1.0, None
    for number in range(1, count + 1):
        places = np.flatnonzero(numbers == number)
        if len(places) > least and float(order[places[-1]]) > best:
            best, box = float(order[places[-1]]), torch.zeros_like(seen)
            box[ndimage.find_objects(numbers)[number - 1]] = True
    return box


def consistent(
    q: Tensor, p: Tensor, ignore: Tensor, keys: Tensor, c: Tensor, config: TrainConfig
) -> Tensor:
    """L_c of a batch."""
    settings = config.method.ael
    m, y = p.softmax(1).max(1)
    rate = (1 - c) / (1 - c).max()
    noise = uniform_noise(keys, q[:, :1].shape)[:, 0]
    b = (noise < rate[q.argmax(1)]) & ~ignore
    losses = functional.cross_entropy(q, y, reduction="none")
    losses[m < config.method.confidence] = 0
    w = m.square() * b
    if settings.per_image:
        return sum((w[i] * losses[i]).sum() / (w[i].sum() + 1e-12) for i in range(len(q))) / len(q)
    return (w * losses).sum() / (w.sum() + 1e-12)


def ael(
    nets: Nets, x: Any, u: Any, config: TrainConfig, bank: Bank
) -> tuple[Tensor, dict[str, Pair]]:
    """A step, image by image and class by class."""
    settings, crop = config.method.ael, config.data.crop
    p_x = teach(nets, x.images)
    base, mix = teach(nets, torch.cat([u.weak, u.mix_weak])).chunk(2)
    boxes = u.boxes[0].clone()
    for i, k in enumerate(u.chosen.classes.tolist()):
        seen = (mix[i].argmax(0) == k) & ~u.mix_padded[i]
        box = component_box(seen, settings.component_area * crop**2, u.numbers[i, 1])
        boxes[i] = boxes[i] if box is None else box
        bank["boxes"] += box is not None
    for i in range(len(u.weak)):
        for place, logits, padded in (
            (u.chosen.places[i], base[i], u.padded[i]),
            (u.chosen.mix_places[i], mix[i], u.mix_padded[i]),
        ):
            for k in range(len(logits)):
                area = ((logits.argmax(0) == k) & ~padded).sum()
                bank["presence"][k, place] = bool(area >= settings.presence_area * crop**2)
    seen_x = nets["student"].outputs(normalise(x.images))
    q_x = seen_x.logits
    q = nets["student"](normalise(paste(boxes, u.mix_weak, u.weak)))
    p, ignore = paste(boxes, mix, base), paste(boxes, u.mix_padded, u.padded)
    c = bank["confidence"]
    for k in range(len(c)):
        seen = [q.softmax(0)[k][y == k] for q, y in zip(q_x.detach(), x.masks, strict=True)]
        if settings.per_image:
            seen = [pixels.mean()[None] for pixels in seen if len(pixels)]
        pixels = torch.cat([torch.zeros(0), *seen])
        if len(pixels) or settings.absent_class.value == "decay":
            mean = pixels.mean() if len(pixels) else 0.0
            c[k] = settings.decay * c[k] + (1 - settings.decay) * mean
    loss = functional.cross_entropy(q_x, x.masks, ignore_index=255)
    if settings.auxiliary_weight:
        other = functional.cross_entropy(seen_x.auxiliary, x.masks, ignore_index=255)
        loss = loss + settings.auxiliary_weight * other
    loss = loss + consistent(q, p, ignore, u.numbers[:, 0], c, config)
    if settings.labelled_consistency:
        loss = loss + consistent(q_x, p_x, x.masks == 255, x.numbers[:, 0], c, config)
    return loss, {"mixed": (q, p, ~ignore), "labelled": (q_x, p_x, x.masks != 255)}


def plain_cutmix(
    nets: Nets, x: Any, u: Any, config: TrainConfig, bank: Bank
) -> tuple[Tensor, dict[str, Pair]]:
    """CutMix with a mean teacher and squared confidence as weights."""
    teach(nets, x.images)
    base, mix = teach(nets, torch.cat([u.weak, u.mix_weak])).chunk(2)
    box = u.boxes[0]
    q_x = nets["student"](normalise(x.images))
    q = nets["student"](normalise(paste(box, u.mix_weak, u.weak)))
    p, valid = paste(box, mix, base), ~paste(box, u.mix_padded, u.padded)
    m, y = p.softmax(1).max(1)
    losses = functional.cross_entropy(q, y, reduction="none")
    loss = (m.square() * losses)[valid].sum() / m.square()[valid].sum()
    loss = loss + functional.cross_entropy(q_x, x.masks, ignore_index=255)
    return loss, {"mixed": (q, p, valid)}


def hint_of(bank: Bank, config: TrainConfig) -> Hint:
    gaps = 1 - bank["confidence"]
    pasted = gaps.clone()
    if config.method.ael.released_paste:
        pasted = gaps.sqrt()
        pasted[:3] = -math.inf
    return Hint(gaps.softmax(0), pasted.softmax(0), bank["presence"].clone())


def transcribed(config: TrainConfig, step_of: StepOf) -> tuple[list[float], Nets, Bank]:
    """Losses, networks and memory of a run by the transcription."""
    dataset = open_dataset(config.data)
    nets = new_state(config, dataset.num_classes, ALONE).networks
    sgd = torch.optim.SGD(
        nets["student"].parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4, foreach=False
    )
    bank = {
        "confidence": torch.zeros(6),
        "presence": torch.zeros(6, 15, dtype=torch.bool),
        "boxes": torch.zeros(()),
    }
    plan = BatchPlan(
        batch=config.batch, stop=0, views=new_method(MethodContext(config, ALONE)).views()
    )
    total, losses = config.optim.epochs * EPOCH, []
    for first in range(0, total, EPOCH):
        epoch = replace(plan, start=first, stop=first + EPOCH, hint=hint_of(bank, config))
        loaded = batches(dataset, config.data, seed=config.seed, plan=epoch)
        for step, (x, u) in enumerate(loaded, start=first):
            loss, pairs = step_of(nets, x, u, config, bank)
            ramp = math.exp(-5 * (1 - step / EPOCH) ** 2) if step < EPOCH else 1.0
            for name in config.pair_views:
                term = inter_pixel(*pairs[name], "kl", config.loss.threshold, 4.0)
                loss = loss + ramp * term
            losses.append(loss.item())
            sgd.zero_grad()
            loss.backward()
            sgd.param_groups[0]["lr"] = config.lr * (1 - step / total) ** 0.9
            sgd.step()
            decay = min(1 - 1 / (step + 1), config.method.ema_decay)
            with torch.no_grad():
                for kept, new in zip(
                    nets["teacher"].parameters(), nets["student"].parameters(), strict=True
                ):
                    kept.copy_(decay * kept + (1 - decay) * new)
    return losses, nets, bank


def equal_runs(config: TrainConfig, folder: Path, step_of: StepOf) -> Bank:
    """Ours, and the transcription, have the same losses, networks and memory."""
    losses, nets, bank = transcribed(config, step_of)
    ours: list[float] = []
    train(config, folder, on_step=lambda step: ours.append(step.terms["loss"].item()))
    tensors = torch.load(max(folder.glob("*/step-*.pt")), weights_only=True)["tensors"]
    assert ours == pytest.approx(losses, abs=1e-9)
    for network, net in nets.items():
        for name, expected in net.state_dict().items():
            key = f"network.{network}.{name}"
            assert (tensors[key] - expected).abs().max().item() <= 1e-9, key
    bank |= {name: value for name, value in tensors.items() if "." in name}
    return bank


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    "more",
    [
        ("method.confidence=0.25", "loss.views=[mixed,labelled]"),
        (
            "method.ael.per_image=false",
            "method.ael.labelled_consistency=true",
            "method.ael.absent_class=skip",
            "method.ael.auxiliary_weight=0.4",
            "method.ael.released_paste=true",
        ),
    ],
)
def test_nine_steps_with_two_new_hints_are_those_of_the_transcription(
    drawn_root: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    overrides = ("optim.epochs=3", "optim.head_lr_factor=1", *QUICK, *more)
    config = tiny_config(drawn_root, *SHORT, *overrides)

    bank = equal_runs(config, tmp_path, ael)

    gap = bank["memory.confidence"] - bank["confidence"]
    assert gap.abs().max() <= 1e-9
    assert torch.equal(bank["memory.presence"], bank["presence"])
    assert 0 < bank["presence"].sum() < bank["presence"].numel()
    assert 0 < bank["boxes"] < 9 * config.batch  # and random ones
    assert bank["confidence"].min() < 0.7 * bank["confidence"].max()


@pytest.mark.usefixtures("double_precision")
def test_without_a_gap_of_confidence_it_is_plain_cutmix(drawn_root: Path, tmp_path: Path) -> None:
    words = ("decay=1", "component_area=1", "pasted_classes=0", "per_image=false")
    named = [f"method.ael.{word}" for word in words]
    overrides = ("optim.epochs=2", "optim.head_lr_factor=1", "method.confidence=0", *named)
    # No class fills a whole crop, so the memory stays as it was.
    config = tiny_config(drawn_root, *SHORT, *overrides, "method.ael.presence_area=1")

    bank = equal_runs(config, tmp_path, plain_cutmix)

    assert not bank["memory.confidence"].any()
    assert not bank["memory.presence"].any()


def test_of_an_image_seen_twice_the_later_time_counts() -> None:
    before = torch.tensor([[True, False, False, True], [False, False, True, True]])
    places = torch.tensor([2, 1, 0, 2])  # of four images; 0 is none
    shown = torch.tensor([[True, True], [False, True], [True, True], [False, True]])

    after = _renewed(before, places, shown)

    assert after.tolist() == [[False, False, False, True], [True, True, True, True]]
    assert _renewed(before[:, :0], places, shown).shape == (2, 0)


def test_a_rule_that_leaves_no_class_is_refused_before_anything_is_written(
    drawn_root: Path, tmp_path: Path
) -> None:
    words = ("data.drawn.num_classes=3", "method.ael.released_paste=true")

    with pytest.raises(ValueError, match=r"there are 3; use method\.ael\.released_paste=false"):
        train(tiny_config(drawn_root / "three", *SHORT, *words), tmp_path / "run")

    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_stopped_after_every_step_a_run_ends_with_the_same_bits(
    drawn_root: Path, tmp_path: Path
) -> None:
    overrides = [*SHORT, *QUICK, "optim.epochs=2"]
    hints: list[Tensor] = []
    train(
        tiny_config(drawn_root, *overrides),
        tmp_path / "straight",
        on_step=lambda report: hints.append(report.state.hint.presence),
    )
    expected = straight(drawn_root, tmp_path / "straight", overrides)

    assert not torch.equal(hints[1], hints[2])  # the second epoch has another hint
    assert torch.equal(hints[2], hints[4])
    assert in_pieces(drawn_root, tmp_path / "pieces", overrides, [1] * 5) == expected
    for step in range(2, 6):
        assert in_pieces(drawn_root, tmp_path / f"{step}", overrides, [step]) == expected
    other = ["run.loader_workers=2", "run.augment=device", "run.memory=recompute"]
    assert straight(drawn_root, tmp_path / "other", [*overrides, *other]) == expected
    assert in_pieces(drawn_root, tmp_path / "both", [*overrides, *other], [2, 2]) == expected


@pytest.mark.long
def test_in_double_precision_one_two_and_three_ranks_have_one_objective_and_memory(
    drawn_root: Path, tmp_path: Path
) -> None:
    overrides = (*SHORT, *QUICK, "optim.epochs=2", "loss.views=[mixed,labelled]")
    one, two, three = (
        Run(drawn_root, tmp_path / f"{size}", size, overrides, is_double=True).finish()
        for size in (1, 2, 3)
    )

    tensors = one.newest()
    assert tensors["hint.presence"].any()
    for other in (two, three):
        assert other.samples() == one.samples()
        assert other.losses() == pytest.approx(one.losses(), rel=1e-11)
        for name, value in other.newest().items():
            assert (tensors[name].double() - value.double()).abs().max() <= 1e-9, name
