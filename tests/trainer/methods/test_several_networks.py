"""Methods of several networks, against plain transcriptions of their papers and codes.

Each step below is written as its authors write it: boolean indices, torch.optim, loops over state
dictionaries. In double precision ours stays within 1e-9 of it.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.official_step import inter_pixel, paste, unsupervised
from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches
from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import in_pieces, straight
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.methods.interface import MethodContext, StepInput, new_method
from trainer.network.deeplab import normalise
from trainer.run import train
from trainer.state import new_state

ALONE = Ranks(0, 1, torch.device("cpu"))
Nets = dict[str, Any]
Pair = tuple[Tensor, Tensor, Tensor]  # student, teacher, valid


def without_gradient(network: nn.Module, images: Tensor, *, training: bool) -> Tensor:
    network.train(training)
    with torch.no_grad():
        return network(normalise(images))


def supervised(logits: Tensor, masks: Tensor) -> Tensor:
    return functional.cross_entropy(logits, masks, ignore_index=255)


def mean_teacher(nets: Nets, x: Any, u: Any, config: TrainConfig) -> tuple[Tensor, list[Pair]]:
    student = [nets["student"](normalise(images)) for images in (x.images, u.weak)]
    teacher = [
        without_gradient(nets["teacher"], images, training=True) for images in (x.images, u.weak)
    ]
    chosen = [x.masks != 255, ~u.padded]
    gaps = [
        (q.softmax(1) - p.softmax(1)).square().movedim(1, -1)[keep]
        for q, p, keep in zip(student, teacher, chosen, strict=True)
    ]
    loss = supervised(student[0], x.masks) + 100.0 * torch.cat(gaps).mean()
    return loss, [(student[1], teacher[1], ~u.padded)]


def cutmix_seg(nets: Nets, x: Any, u: Any, config: TrainConfig) -> tuple[Tensor, list[Pair]]:
    box = u.boxes[0]
    loss = supervised(nets["student"](normalise(x.images)), x.masks)
    base, mix = (
        without_gradient(nets["teacher"], images, training=True) for images in (u.weak, u.mix_weak)
    )
    teacher, ignore = paste(box, mix, base), paste(box, u.mix_padded, u.padded)
    seen = (u.mix_weak, u.weak)
    if config.method.cutmix_seg.colour:
        seen = (u.mix_strong[0], u.strong[0])
    student = nets["student"](normalise(paste(box, *seen)))
    sure = (teacher.softmax(1).max(1).values >= config.method.confidence).double()
    if not config.method.cutmix_seg.per_pixel:
        sure = sure.mean()
    gaps = (student.softmax(1) - teacher.softmax(1)).square().sum(1)
    return loss + (gaps * ~ignore * sure).mean(), [(student, teacher, ~ignore)]


def mt_cutmix(nets: Nets, x: Any, u: Any, config: TrainConfig) -> tuple[Tensor, list[Pair]]:
    box = u.boxes[0]
    base, mix = (
        without_gradient(nets["teacher"], images, training=False) for images in (u.weak, u.mix_weak)
    )
    teacher, ignore = paste(box, mix, base), paste(box, u.mix_padded, u.padded)
    strong = paste(box, u.mix_strong[0], u.strong[0])
    out = nets["student"](normalise(torch.cat([x.images, strong])))
    q_x, q_s = out[: len(x.images)], out[len(x.images) :]
    confidence, classes = teacher.softmax(1).max(1)
    loss_s = unsupervised(q_s, classes, confidence, ignore, config.method.confidence)
    return (supervised(q_x, x.masks) + loss_s) / 2.0, [(q_s, teacher, ~ignore)]


def cps(nets: Nets, x: Any, u: Any, config: TrainConfig) -> tuple[Tensor, list[Pair]]:
    both, box = [nets["first"], nets["second"]], u.boxes[0]
    teachers = []
    for net in both:
        base = without_gradient(net, u.weak, training=True)
        teachers.append(paste(box, without_gradient(net, u.mix_weak, training=True), base))
    valid = ~paste(box, u.mix_padded, u.padded)
    mixed = paste(box, u.mix_weak, u.weak)
    loss = sum(supervised(net(normalise(x.images)), x.masks) for net in both)
    students = [net(normalise(mixed)) for net in both]
    for student, teacher in zip(students, teachers[::-1], strict=True):
        each = functional.cross_entropy(student, teacher.argmax(1), reduction="none")
        loss = loss + config.method.cps.weight * each[valid].mean()
    return loss, [(students[1], teachers[0], valid), (students[0], teachers[1], valid)]


def cps_no_cutmix(nets: Nets, x: Any, u: Any, config: TrainConfig) -> tuple[Tensor, list[Pair]]:
    both = [nets["first"], nets["second"]]
    labelled = [net(normalise(x.images)) for net in both]
    weak = [net(normalise(u.weak)) for net in both]
    loss = sum(supervised(logits, x.masks) for logits in labelled)
    z = [torch.cat(parts) for parts in zip(labelled, weak, strict=True)]
    valid = torch.cat([x.masks != 255, ~u.padded])
    for one, other in (z, z[::-1]):
        each = functional.cross_entropy(one, other.argmax(1), reduction="none")
        loss = loss + config.method.cps.weight_without_cutmix * each[valid].mean()
    (first, second), real = weak, ~u.padded
    return loss, [(second, first.detach(), real), (first, second.detach(), real)]


def move(nets: Nets, step: int, method: str, decay: float) -> None:
    """The average of the teacher, entry by entry of its state."""
    if method == "mt_cutmix":
        decay = min(1.0 - 1.0 / (step + 1), decay)
    weights = dict(nets["student"].named_parameters())
    for name, value in nets["teacher"].state_dict().items():
        new = nets["student"].state_dict()[name]
        if name not in weights and method == "mean_teacher":
            continue  # its own batch statistics
        value.copy_(decay * value + (1.0 - decay) * new if value.is_floating_point() else new)


STEPS: dict[str, Callable[..., tuple[Tensor, list[Pair]]]] = {
    "mean_teacher": mean_teacher,
    "cutmix_seg": cutmix_seg,
    "mt_cutmix": mt_cutmix,
    "cps": cps,
    "cps_no_cutmix": cps_no_cutmix,
}


def transcribed(config: TrainConfig, steps: int, per_epoch: int) -> tuple[list[float], Nets]:
    """Losses and networks of a run by the transcription."""
    dataset = open_dataset(config.data)
    nets = new_state(config, dataset.num_classes, ALONE).networks
    trained = [net for net in nets.values() if next(net.parameters()).requires_grad]
    optimisers = [
        torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4, foreach=False)
        for net in trained
    ]
    views = new_method(MethodContext(config, ALONE)).views()
    plan = BatchPlan(batch=config.batch, stop=steps, views=views)
    losses = []
    for step, (x, u) in enumerate(batches(dataset, config.data, seed=config.seed, plan=plan)):
        for net in trained:
            net.train()
        loss, pairs = STEPS[config.method.name](nets, x, u, config)
        warmup = config.loss.warmup_epochs * per_epoch
        ramp = math.exp(-5 * (1 - step / warmup) ** 2) if step < warmup else 1.0
        views_losses = [inter_pixel(q, p, v, "kl", config.loss.threshold, 4.0) for q, p, v in pairs]
        loss = loss + ramp * sum(views_losses) / len(views_losses)
        losses.append(loss.item())
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = config.lr * (1 - step / steps) ** 0.9
            optimiser.step()
        if "teacher" in nets:
            with torch.no_grad():
                move(nets, step, config.method.name, config.method.ema_decay)
    return losses, nets


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    "overrides",
    [[f"method={name}"] for name in STEPS]
    + [["method=cutmix_seg", f"method.cutmix_seg.{name}=true"] for name in ("per_pixel", "colour")],
    ids=" ".join,
)
def test_six_steps_give_the_losses_and_weights_of_the_transcription(
    drawn_root: Path, tmp_path: Path, overrides: list[str]
) -> None:
    more = ("loss=kl", "optim.epochs=2", "method.confidence=0.2", "optim.head_lr_factor=1")
    config = tiny_config(drawn_root, *overrides, *more, "evaluation.every_epochs=2")
    losses, nets = transcribed(config, steps=6, per_epoch=3)
    ours: list[float] = []

    summary = train(config, tmp_path, on_step=lambda step: ours.append(step.terms["loss"].item()))

    tensors = torch.load(tmp_path / "checkpoints" / "step-00000006.pt", weights_only=True)[
        "tensors"
    ]
    start, moved = new_state(config, 6, ALONE).tensors(), dict.fromkeys(nets, 0.0)
    assert summary.steps == 6
    assert ours == pytest.approx(losses, abs=1e-9)
    for network, net in nets.items():
        for name, expected in net.state_dict().items():
            key = f"network.{network}.{name}"
            assert (tensors[key] - expected).abs().max().item() <= 1e-9, key
            if name.endswith("weight"):
                change = (expected - start[key]).abs().max().item()
                moved[network] = max(moved[network], change)
    assert min(moved.values()) > 5e-4


@pytest.mark.long
@pytest.mark.parametrize("method", list(STEPS))
def test_stopped_after_every_step_a_run_ends_with_the_same_bits(
    drawn_root: Path, tmp_path: Path, method: str
) -> None:
    overrides = [f"method={method}", "loss=kl", "optim.epochs=2", "evaluation.every_epochs=2"]

    expected = straight(drawn_root, tmp_path / "straight", overrides)

    assert in_pieces(drawn_root, tmp_path / "pieces", overrides, [1] * 5) == expected


def test_two_equal_networks_teach_each_other_the_same(drawn_root: Path) -> None:
    config = tiny_config(drawn_root, "method=cps", "loss=kl")
    dataset = open_dataset(config.data)
    state = new_state(config, dataset.num_classes, ALONE)
    state.networks["second"].load_state_dict(state.networks["first"].state_dict())
    method = new_method(MethodContext(config, ALONE))
    plan = BatchPlan(batch=config.batch, stop=1, views=method.views())
    ((x, u),) = batches(dataset, config.data, seed=1, plan=plan)

    result = method.step(StepInput(state.networks, state.memory, x, u))

    one, two = result.pairs
    assert (one.view, two.view) == ("1to2", "2to1")
    assert torch.equal(one.student, two.student)
    assert torch.equal(one.teacher, two.teacher)
    assert not torch.equal(one.teacher, one.student)  # before pasting, and after
