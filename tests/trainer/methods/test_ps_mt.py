"""PS-MT against a plain transcription of its paper and code, in float64, and its noise."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.official_step import inter_pixel, paste
from datasets.augment.boxes import uniform_noise
from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches
from tests.support.recording_ranks import Run
from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import in_pieces, straight
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.methods.interface import MethodContext, Position, StepInput, new_method
from trainer.methods.ps_mt import _assisting
from trainer.network.deeplab import normalise
from trainer.objective import Objective
from trainer.run import train
from trainer.state import new_state

ALONE = Ranks(0, 1, torch.device("cpu"))
EPOCH, WARMUP = 3, 2  # steps; a pass over the five labelled images is one step of four
SHORT = (
    "method=ps_mt",
    "loss=kl",
    "method.ps_mt.warmup_epochs=2",
    "method.ps_mt.ramp_epochs=2",
    "method.confidence=0.2",
    "evaluation.every_epochs=3",
)
Nets = dict[str, Any]
Pair = tuple[Tensor, Tensor, Tensor]  # student, teacher, valid
StepOf = Callable[[Nets, Any, Any, TrainConfig, int], tuple[Tensor, list[Pair]]]


def features_of(net: Any, images: Tensor) -> Tensor:
    low, high = net.backbone(normalise(images))
    context = functional.interpolate(net.head(high, "nearest"), low.shape[2:], mode="nearest")
    return torch.cat([net.reduce(low), context], 1)


def decoded(net: Any, features: Tensor, side: int) -> Tensor:
    return functional.interpolate(net.classifier(net.fuse(features)), (side, side), mode="nearest")


def tvat(nets: Nets, f: Tensor, numbers: Tensor, config: TrainConfig, side: int) -> Tensor:
    """The noise, image by image."""
    settings, decoders = config.method.ps_mt, [nets["teacher_1"], nets["teacher_2"]]
    f = f.detach()
    norms = [x.norm() for x in f]
    xi, radius, added = [1e-6] * len(f), [2.0] * len(f), 1e-8
    if settings.tvat.value == "intent":
        xi = [settings.tvat_step * norm for norm in norms]
        radius, added = [settings.tvat_radius * norm for norm in norms], 0.0
    v = uniform_noise(numbers[:, 0], f.shape).to(f.dtype) - 0.5
    v = torch.stack([x / (x.norm() + added) for x in v]).requires_grad_()
    for net in decoders:
        net.eval()
    p = sum(decoded(net, f, side) for net in decoders).detach().div(2).softmax(1)
    noisy = torch.stack([x + s * d for x, s, d in zip(f, xi, v, strict=True)])
    log_q = (sum(decoded(net, noisy, side) for net in decoders) / 2).log_softmax(1)
    kl = (p * (p.log() - log_q)).sum() / config.batch
    (g,) = torch.autograd.grad(kl, v)
    for net in decoders:
        net.train()
    return torch.stack([r * x / (x.norm() + added) for r, x in zip(radius, g, strict=True)])


def two_teachers(
    nets: Nets, x: Any, u: Any, config: TrainConfig, step: int
) -> tuple[Tensor, list[Pair]]:
    """A step of PS-MT; the warm-up before it."""
    teachers, settings = [nets["teacher_1"], nets["teacher_2"]], config.method.ps_mt
    if step < WARMUP:
        logits = [nets["student"](normalise(x.strong))]
        logits += [net(normalise(x.images)) for net in teachers]
        return sum(functional.cross_entropy(q, x.masks, ignore_index=255) for q in logits), []
    weak, side = normalise(torch.cat([u.weak, u.mix_weak])), u.weak.shape[-1]
    with torch.no_grad():
        first, second = (net(weak) for net in teachers)
    if settings.assist:
        is_second = (step - WARMUP) // EPOCH % 2
        core, other = (second, first) if is_second else (first, second)
        kept = torch.zeros_like(other).scatter_(1, (top := other.topk(6, 1)).indices, top.values)
        first, second = core, torch.where(kept == 0, core, kept)
    base, mix = ((first + second) / 2).chunk(2)
    box = u.boxes[0]
    p, ignore = paste(box, mix, base), paste(box, u.mix_padded, u.padded)
    outputs = []
    for images, numbers in (
        (x.strong, x.numbers),
        (paste(box, u.mix_strong[0], u.strong[0]), u.numbers),
    ):
        f = features_of(nets["student"], images)
        if settings.tvat.value != "off":
            f = f + tvat(nets, f, numbers, config, side)
        outputs.append(decoded(nets["student"], f, side))
    loss_x = functional.cross_entropy(outputs[0], x.masks, ignore_index=255)
    return loss_x + weighted(outputs[1], p, ignore, config, step), [(outputs[1], p, ~ignore)]


def weighted(q: Tensor, p: Tensor, ignore: Tensor, config: TrainConfig, step: int) -> Tensor:
    """The unlabelled loss: confidence as weights, its ramp before it."""
    confidence, classes = p.softmax(1).max(1)
    sure = (confidence >= config.method.confidence) & ~ignore
    each = functional.cross_entropy(q, classes, reduction="none")
    warmup = WARMUP if config.method.ps_mt.warmup_epochs else 0
    part = min(1.0, (step - warmup) / (config.method.ps_mt.ramp_epochs * EPOCH))
    ramp = config.method.ps_mt.weight * (1 - math.cos(math.pi * part)) / 2
    return ramp * (confidence * each)[sure].mean()


def mean_teacher(
    nets: Nets, x: Any, u: Any, config: TrainConfig, step: int
) -> tuple[Tensor, list[Pair]]:
    """Mean Teacher with CutMix, strong views and confidence as weights."""
    with torch.no_grad():
        out = nets["teacher_1"].train()(normalise(torch.cat([u.weak, u.mix_weak])))
    box = u.boxes[0]
    p = paste(box, out[len(u.weak) :], out[: len(u.weak)])
    ignore = paste(box, u.mix_padded, u.padded)
    q_x = nets["student"](normalise(x.strong))
    q = nets["student"](normalise(paste(box, u.mix_strong[0], u.strong[0])))
    loss_x = functional.cross_entropy(q_x, x.masks, ignore_index=255)
    return loss_x + weighted(q, p, ignore, config, step), [(q, p, ~ignore)]


def transcribed(config: TrainConfig, step_of: StepOf, steps: int) -> tuple[list[float], Nets]:
    """Losses and networks of a run by the transcription."""
    dataset = open_dataset(config.data)
    nets = new_state(config, dataset.num_classes, ALONE).networks
    sgd = partial(torch.optim.SGD, lr=0.0, momentum=0.9, weight_decay=1e-4, foreach=False)
    optimisers = {name: sgd(net.parameters()) for name, net in nets.items()}
    plan = BatchPlan(
        batch=config.batch, stop=steps, views=new_method(MethodContext(config, ALONE)).views()
    )
    warmup = WARMUP if config.method.ps_mt.warmup_epochs else 0
    losses = []
    for step, (x, u) in enumerate(batches(dataset, config.data, seed=config.seed, plan=plan)):
        loss, pairs = step_of(nets, x, u, config, step)
        ramp = math.exp(-5 * (1 - step / EPOCH) ** 2) if step < EPOCH else 1.0
        for q, p, valid in pairs:
            loss = loss + ramp * inter_pixel(q, p, valid, "kl", config.loss.threshold, 4.0)
        losses.append(loss.item())
        for optimiser in optimisers.values():
            optimiser.zero_grad()
        loss.backward()
        for name, optimiser in optimisers.items():
            if name == "student" or step < warmup:
                optimiser.param_groups[0]["lr"] = config.lr * (1 - step / steps) ** 0.9
                optimiser.step()
        if step >= warmup:
            turn = (step - warmup) // EPOCH % (len(nets) - 1)
            new = nets["student"].state_dict()
            for name, value in nets[f"teacher_{turn + 1}"].state_dict().items():
                if value.is_floating_point():
                    value.copy_(0.9 * value + 0.1 * new[name])
    return losses, nets


def equal_runs(config: TrainConfig, folder: Path, step_of: StepOf, steps: int) -> None:
    """Ours, and the transcription, have the same losses and networks."""
    losses, nets = transcribed(config, step_of, steps)
    ours: list[float] = []
    train(config, folder, on_step=lambda step: ours.append(step.terms["loss"].item()))
    path = folder / "checkpoints" / f"step-{steps:08d}.pt"
    tensors = torch.load(path, weights_only=True)["tensors"]
    start = new_state(config, 6, ALONE).tensors()
    assert ours == pytest.approx(losses, abs=1e-9)
    for network, net in nets.items():
        moved = 0.0
        for name, expected in net.state_dict().items():
            if expected.is_floating_point():
                key = f"network.{network}.{name}"
                assert (tensors[key] - expected).abs().max().item() <= 1e-9, key
                moved = max(moved, (expected - start[key]).abs().max().item())
        assert moved > 1e-3


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("more", [(), ("tvat=released", "assist=true"), ("three_boxes=true",)])
def test_nine_steps_over_warmup_and_two_turns_are_those_of_the_transcription(
    drawn_root: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    named = [f"method.ps_mt.{name}" for name in more]
    overrides = ("optim.epochs=3", "method.ema_decay=0.9", "optim.head_lr_factor=1", *named)
    config = tiny_config(drawn_root, *SHORT, *overrides)

    equal_runs(config, tmp_path, two_teachers, steps=9)


@pytest.mark.usefixtures("double_precision")
def test_one_teacher_without_noise_is_mean_teacher_with_confidence_weights(
    drawn_root: Path, tmp_path: Path
) -> None:
    named = ("warmup_epochs=0", "teachers=1", "tvat=off")
    overrides = ("optim.epochs=2", "method.ema_decay=0.9", "optim.head_lr_factor=1")
    config = tiny_config(
        drawn_root, *SHORT, *overrides, *(f"method.ps_mt.{name}" for name in named)
    )

    equal_runs(config, tmp_path, mean_teacher, steps=6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_noise_has_the_radius_that_the_settings_say(drawn_root: Path, precision: str) -> None:
    seen: dict[str, list[Tensor]] = {"off": [], "intent": []}
    for tvat_mode, features in seen.items():
        config = tiny_config(
            drawn_root, *SHORT, f"method.ps_mt.tvat={tvat_mode}", f"optim.precision={precision}"
        )
        objective = Objective.of(config, ALONE)
        dataset = open_dataset(config.data)
        state = new_state(config, dataset.num_classes, ALONE)
        plan = BatchPlan(batch=config.batch, stop=1, views=objective.method.views())
        ((x, u),) = batches(dataset, config.data, seed=1, plan=plan)
        keep = partial(_keep, features)
        state.networks["student"].fuse.register_forward_pre_hook(keep)
        numbers = objective.method.numbers(Position(WARMUP, EPOCH, 9, 1))
        objective(StepInput(state.networks, {}, x, u, numbers), weight=1.0)

    assert len(seen["off"]) == 2  # labelled, unlabelled
    for clean, noisy in zip(seen["off"], seen["intent"], strict=True):
        norm, radius = (values.flatten(1).norm(dim=1) for values in (clean, noisy - clean))
        tolerance = 1e-5 if precision == "fp32" else 1e-2
        torch.testing.assert_close(radius, 0.05 * norm, rtol=tolerance, atol=0.0)


def _keep(features: list[Tensor], module: Any, given: tuple[Tensor, ...]) -> None:
    features.append(given[0].detach().double())
    assert given[0].is_contiguous(memory_format=torch.channels_last)


def test_the_resting_teacher_gives_its_seven_best_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    active, resting = torch.randn(2, 1, 10, 3, 3, generator=generator)
    resting[0, 4, 0, 0] = 0.0

    result = _assisting(active, resting)

    for row in range(3):
        for column in range(3):
            best = set(resting[0, :, row, column].topk(7).indices.tolist())
            for c in range(10):
                value = resting[0, c, row, column]
                expected = value if c in best and value != 0.0 else active[0, c, row, column]
                assert result[0, c, row, column] == expected


def test_teachers_may_start_from_backbones_of_their_own(drawn_root: Path) -> None:
    start = "method.ps_mt.teacher_start=drawn"
    usual = new_state(tiny_config(drawn_root, *SHORT), 6, ALONE).networks
    drawn = new_state(tiny_config(drawn_root, *SHORT, start), 6, ALONE).networks

    def weights(networks: Any, name: str) -> Tensor:
        return networks[name].state_dict()["backbone.layer1.0.conv1.weight"]

    assert torch.equal(weights(usual, "teacher_1"), weights(usual, "student"))
    assert torch.equal(weights(drawn, "student"), weights(usual, "student"))
    first, second = weights(drawn, "teacher_1"), weights(drawn, "teacher_2")
    assert not torch.equal(first, weights(drawn, "student"))
    assert not torch.equal(first, second)
    assert first.std() == pytest.approx(float(weights(drawn, "student").std()), rel=0.5)
    heads = [net[name].state_dict()["classifier.weight"] for net in (usual, drawn) for name in net]
    assert all(torch.equal(one, two) for one, two in zip(heads[:3], heads[3:], strict=True))


def test_teachers_take_turns_after_the_warmup(drawn_root: Path) -> None:
    method = new_method(MethodContext(tiny_config(drawn_root, *SHORT), ALONE))
    rows = [method.numbers(Position(step, EPOCH, 12, 1)) for step in range(12)]

    assert [row["is_warmup"] for row in rows] == [1.0] * 2 + [0.0] * 10
    turns = ["".join(name[-1] for name in row if name[:5] == "share" and row[name]) for row in rows]
    assert "-".join(turns) == "--0-0-0-1-1-1-0-0-0-1"
    weights = [row["weight"] for row in rows[2:]]
    assert weights[0] == 0.0
    assert weights[3] == pytest.approx(0.75)
    assert weights[6:] == [1.5] * 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("method.ps_mt.teachers=1", "loss.views=[teacher_1,teacher_2]"), r"use mean or two"),
        (
            ("method.ps_mt.warmup_epochs=0", "method.ps_mt.teacher_start=drawn"),
            "teacher_start=drawn needs a warm-up",
        ),
        (("run.graph=step",), r"or method\.ps_mt\.warmup_epochs=0\."),
    ],
)
def test_what_has_no_meaning_is_refused_before_anything_is_written(
    drawn_root: Path, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        train(tiny_config(drawn_root, *SHORT, *words), tmp_path / "run")

    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_stopped_after_every_step_a_run_ends_with_the_same_bits(
    drawn_root: Path, tmp_path: Path
) -> None:
    overrides = [*SHORT, "optim.epochs=2"]  # two steps of warm-up, three of a turn, one of another
    expected = straight(drawn_root, tmp_path / "straight", overrides)

    assert in_pieces(drawn_root, tmp_path / "pieces", overrides, [1] * 5) == expected
    other = ["run.loader_workers=2", "run.augment=device", "run.memory=recompute"]
    assert straight(drawn_root, tmp_path / "other", [*overrides, *other]) == expected


@pytest.mark.long
def test_in_double_precision_one_two_and_three_ranks_have_one_objective(
    drawn_root: Path, tmp_path: Path
) -> None:
    overrides = (*SHORT, "optim.epochs=2", "loss.views=[mean,teacher_1,teacher_2]")
    one, two, three = (
        Run(drawn_root, tmp_path / f"{size}", size, overrides, is_double=True).finish()
        for size in (1, 2, 3)
    )

    networks = one.newest("network.")
    for other in (two, three):
        assert other.samples() == one.samples()
        assert other.losses() == pytest.approx(one.losses(), rel=1e-11)
        for name, value in other.newest("network.").items():
            assert (networks[name] - value).abs().max() <= 1e-9, name
