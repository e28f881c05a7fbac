"""U2PL against a plain transcription of its paper and of its code, in float64."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from benchmarks.official_step import inter_pixel, paste
from datasets.augment.boxes import uniform_noise
from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches
from tests.support.recording_ranks import Run
from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import in_pieces, straight
from trainer.config.method_settings import U2plConfig
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.methods.contrast.u2pl_contrast import _Picked, sampled_info_nce
from trainer.methods.interface import MethodContext, Position, StepInput, new_method
from trainer.methods.u2pl import percentile
from trainer.network.deeplab import normalise
from trainer.objective import Objective
from trainer.run import train
from trainer.state import new_state
from trainer.step.eager import Step

ALONE = Ranks(0, 1, torch.device("cpu"))
EPOCH, CLASSES = 3, 6
# Banks that are full after two steps or three; nine pixels in ten are sure enough to be anchors.
SHORT = (
    "method=u2pl",
    "loss=kl",
    "loss.threshold=0.17",
    "loss.views=[teacher_eval,teacher_train]",
    "evaluation.every_epochs=4",
    "method.ema_decay=0.9",
    "method.u2pl.contrast_weight=1",
    "method.u2pl.unreliable_percent=30",
    "method.u2pl.anchors=7",
    "method.u2pl.negatives=5",
    "method.u2pl.anchor_confidence=0.17",
    "method.u2pl.rank_low=2",
    "method.u2pl.rank_high=5",
    "method.u2pl.bank_rows=300",
    "method.u2pl.bank_rows_first=400",
)
EXACT = (*SHORT, "method.u2pl.bank_precision=single", "optim.head_lr_factor=1")


@dataclass
class Transcription:
    """U2PL as its authors write it: lists of each class, boolean indices, tensors that grow."""

    config: TrainConfig
    nets: dict[str, Any]
    banks: list[Tensor] = field(default_factory=lambda: [torch.zeros(0, 8)] * CLASSES)
    auxiliary: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def settings(self) -> U2plConfig:
        return self.config.method.u2pl

    @property
    def is_released(self) -> bool:
        return self.settings.compat.value == "released"

    def outputs(self, name: str, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the size of the images and at stride 4, embeddings."""
        net = self.nets[name].train()
        low, middle, high = net.backbone.features(images)
        if self.settings.auxiliary_weight:
            auxiliary = net.heads.auxiliary(middle)
            self.auxiliary = functional.interpolate(auxiliary, images.shape[2:])
        context = functional.interpolate(net.head(high, "nearest"), low.shape[2:], mode="nearest")
        features = torch.cat([net.reduce(low), context], 1)
        small = net.classifier(net.fuse(features))
        return functional.interpolate(small, images.shape[2:]), small, net.heads.embedding(features)

    def step(self, x: Any, u: Any, step: int) -> tuple[Tensor, list[Any]]:
        """Loss without the inter-pixel term, and its pairs."""
        epoch = step // EPOCH
        if epoch < self.settings.sup_only_epochs:
            with torch.no_grad():
                self.nets["teacher"].train()(normalise(x.images))
            return self.supervised(self.outputs("student", normalise(x.images))[0], x.masks), []
        box = u.boxes[0] & (u.numbers[:, 0] < 0.5).view(-1, 1, 1)
        with torch.no_grad():
            p = self.nets["teacher"].eval()(normalise(u.weak))
        p = paste(box, p.roll(-1, 0), p)
        valid = ~paste(box, u.padded.roll(-1, 0), u.padded)
        base = u.strong[0] if self.settings.strong else u.weak
        images = normalise(torch.cat([x.images, paste(box, base.roll(-1, 0), base)]))
        q, _, z = self.outputs("student", images)
        n = len(x.images)
        loss = self.supervised(q[:n], x.masks)
        with torch.no_grad():
            t, t4, z_t = self.outputs("teacher", images)

        counted = torch.ones_like(valid) if self.is_released else valid
        y = p.argmax(1).masked_fill(~counted, 255)
        prob = t[n:].softmax(1)
        entropy = -(prob * prob.log()).sum(1)
        alpha = self.settings.unreliable_percent * (1 - epoch / self.config.optim.epochs)
        known = entropy[counted].numpy()
        low, high = np.percentile(known, alpha), np.percentile(known, 100 - alpha)
        target = y.clone()
        target[entropy >= high] = 255
        weight = counted.sum() / (target != 255).sum()
        loss = loss + weight * functional.cross_entropy(q[n:], target, ignore_index=255)

        all_of = torch.ones_like(x.masks, dtype=torch.bool)
        classes = nearest(torch.cat([x.masks, y]), z)
        is_low = nearest(torch.cat([all_of, entropy <= low]), z) & (classes != 255)
        is_high = nearest(torch.cat([all_of, entropy >= high]), z) & (classes != 255)
        noise = (CLASSES, self.settings.anchors, 1 + self.settings.negatives)
        drawn = uniform_noise(u.numbers[:1, 1], torch.Size((1, *noise)))[0].double()
        self.push(z_t, t4, classes, is_high)
        loss_c = self.contrast((z, z_t), t4, (classes, is_low), drawn)
        loss = loss + self.settings.contrast_weight * loss_c
        return loss, [(q[n:], p, valid), (q[n:], t[n:], valid)]

    def supervised(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Labelled loss of the logits that the student made last."""
        loss = functional.cross_entropy(logits, masks, ignore_index=255)
        if not self.settings.auxiliary_weight:
            return loss
        other = functional.cross_entropy(self.auxiliary[: len(masks)], masks, ignore_index=255)
        return loss + self.settings.auxiliary_weight * other

    def push(self, z_t: Tensor, t4: Tensor, classes: Tensor, is_high: Tensor) -> None:
        """Negatives into the banks, and the oldest out of them."""
        order = t4.argsort(dim=1, descending=True)
        low, high = self.settings.rank_low, self.settings.rank_high
        for c in range(CLASSES):
            likely = (order[:, :low] == c).any(1)
            unlikely = (order[:, low:high] == c).any(1)
            negative = torch.cat([likely[:4] & (classes[:4] != c), unlikely[4:]]) & is_high
            if self.is_released:
                negative &= classes == c
            room = self.settings.bank_rows if c else self.settings.bank_rows_first
            rows = z_t.movedim(1, -1)[negative]
            self.banks[c] = torch.cat([self.banks[c], rows])[-room:]

    def contrast(
        self, z: tuple[Tensor, Tensor], t4: Tensor, maps: tuple[Tensor, Tensor], drawn: Tensor
    ) -> Tensor:
        """The loss of every class, one anchor and one negative after another."""
        student, teacher = (x.movedim(1, -1) for x in z)
        classes, is_low = maps
        members = [(classes == c) & is_low for c in range(CLASSES)]
        prob = t4.softmax(1)
        anchors = [mask & (prob[:, c] > 0.17) for c, mask in enumerate(members)]
        present = [c for c in range(CLASSES) if members[c].any()]
        if len(present) <= 1:
            return student.sum() * 0
        total = torch.zeros(())
        for place, c in enumerate(present):
            own = place if self.is_released else c
            mine, others = student[anchors[own]], self.banks[c]
            if len(mine) == 0 or len(others) == 0:
                continue
            centre = teacher[members[own] if self.is_released else anchors[own]].mean(0)
            for draws in drawn[own]:
                a = mine[int(draws[0] * len(mine))]
                picked = [centre, *(others[int(d * len(others))] for d in draws[1:])]
                cosines = torch.stack([torch.cosine_similarity(a, b, dim=0) for b in picked])
                total = total - (cosines / self.settings.temperature).log_softmax(0)[0]
        return total / (self.settings.anchors * len(present))

    @torch.no_grad()
    def move(self, step: int) -> None:
        """The teacher: a copy at first, which shares its numbers with the student in the code."""
        first = self.settings.sup_only_epochs
        copied = step // EPOCH < first + self.is_released
        k = step - first * EPOCH
        decay = 0.0 if copied else min(1 - 1 / (k + 1), self.config.method.ema_decay)
        pairs = zip(
            self.nets["teacher"].parameters(), self.nets["student"].parameters(), strict=True
        )
        for mean, value in pairs:
            mean.data = decay * mean.data + (1 - decay) * value.data


def nearest(values: Tensor, like: Tensor) -> Tensor:
    """Maps (B, S, S) at the size of other maps."""
    small = functional.interpolate(values[:, None].double(), like.shape[2:], mode="nearest")
    return small[:, 0].to(values.dtype)


def transcribed(config: TrainConfig, steps: int) -> tuple[list[float], Transcription]:
    """Losses of a run by the transcription, and how it ends."""
    dataset = open_dataset(config.data)
    run = Transcription(config, new_state(config, CLASSES, ALONE).networks)
    optimiser = torch.optim.SGD(
        run.nets["student"].parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4, foreach=False
    )
    views = new_method(MethodContext(config, ALONE)).views()
    plan = BatchPlan(batch=config.batch, stop=steps, views=views)
    losses = []
    for step, (x, u) in enumerate(batches(dataset, config.data, seed=config.seed, plan=plan)):
        loss, pairs = run.step(x, u, step)
        ramp = math.exp(-5 * (1 - step / EPOCH) ** 2) if step < EPOCH else 1.0
        for q, p, valid in pairs:
            term = inter_pixel(q, p, valid, "kl", config.loss.threshold, 4.0)
            loss = loss + ramp * term / len(pairs)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = config.lr * (1 - step / steps) ** 0.9
        optimiser.step()
        run.move(step)
    return losses, run


def queue(tensors: dict[str, Tensor], c: int, rooms: tuple[int, int]) -> Tensor:
    """The rows in the bank of a class, the oldest first."""
    pushed, start = int(tensors["memory.negatives.pushed"][c]), rooms[0] * (c > 0)
    room, start = rooms[c > 0], start + rooms[1] * max(c - 1, 0)
    slots = [start + number % room for number in range(max(0, pushed - room), pushed)]
    return tensors["memory.negatives.features"][slots]


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    "more",
    [
        ("sup_only_epochs=1", "strong=true"),
        ("sup_only_epochs=1", "compat=released", "rank_low=1", "auxiliary_weight=0.4"),
    ],
    ids=" ".join,
)
def test_nine_steps_with_banks_that_fill_are_those_of_the_transcription(
    drawn_root: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    named = [f"method.u2pl.{word}" for word in more]
    config = tiny_config(drawn_root, *EXACT, "optim.epochs=3", *named)
    losses, expected = transcribed(config, steps=9)
    ours: list[float] = []
    parts: list[float] = []

    def note(step: Any) -> None:
        ours.append(step.terms["loss"].item())
        parts.append(step.terms.get("loss_contrast", torch.zeros(())).item())

    train(config, tmp_path, on_step=note)

    path = tmp_path / "checkpoints" / "step-00000009.pt"
    tensors = torch.load(path, weights_only=True)["tensors"]
    assert ours == pytest.approx(losses, abs=1e-9)
    assert parts[:3] == [0.0] * 3
    assert min(parts[3:]) > 0.0
    start = new_state(config, CLASSES, ALONE).tensors()
    for network, net in expected.nets.items():
        moved = 0.0
        for name, value in net.state_dict().items():
            key = f"network.{network}.{name}"
            if value.is_floating_point():
                assert (tensors[key] - value).abs().max().item() <= 1e-9, key
                moved = max(moved, (value - start[key]).abs().max().item())
        assert moved > 1e-3
    for c, rows in enumerate(expected.banks):
        kept = queue(tensors, c, (400, 300))
        torch.testing.assert_close(kept, functional.normalize(rows, dim=1), rtol=0, atol=1e-9)


def test_without_contrast_and_dropped_pixels_it_is_mt_cutmix(drawn_root: Path) -> None:
    # What differs by definition: U2PL's teacher makes its own batch statistics, which are those of
    # a teacher that is a copy; mt_cutmix halves its loss, which at twice the rate is the same.
    off = ("method.u2pl.contrast_weight=0", "method.u2pl.unreliable_percent=0")
    same = ("loss=none", "method.ema_decay=0", "method.confidence=0", "optim.weight_decay=0")
    words = ("method=u2pl", *off, *same, "method.u2pl.sup_only_epochs=0", "method.u2pl.strong=true")
    mine = tiny_config(drawn_root, *words)
    other = tiny_config(drawn_root, "method=mt_cutmix", "method.ema_buffers=copy", *same)
    dataset = open_dataset(mine.data)
    runs = [
        (Step(Objective.of(c, ALONE), state, ALONE), state)
        for c in (mine, other)
        for state in [new_state(c, CLASSES, ALONE)]
    ]
    plan = BatchPlan(batch=mine.batch, stop=6, views=runs[0][0].method.views())
    pasted = 0

    for step, (x, u) in enumerate(batches(dataset, mine.data, seed=1, plan=plan)):
        taken = u.numbers[:, 0] < 0.5
        pasted += int(taken.sum())
        boxes = (u.boxes[0] & taken[:, None, None],)
        terms = []
        for (take, state), batch, rate in zip(
            runs, (u, replace(u, boxes=boxes)), (0.01, 0.02), strict=True
        ):
            numbers = take.method.numbers(Position(step, EPOCH, 6))
            inputs = StepInput(state.networks, state.memory, x, batch, numbers)
            terms.append(take(inputs, weight=0.0, rate=rate))
        assert terms[0]["loss_unlabelled"] == terms[1]["loss_strong"] > 0
        assert terms[0]["loss"] == 2.0 * terms[1]["loss"]

    assert 0 < pasted < 6 * mine.batch
    weights = [state.networks["teacher"].state_dict() for _, state in runs]
    start = new_state(mine, CLASSES, ALONE).networks["teacher"].state_dict()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
        assert not torch.equal(value, start[name]), name


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_infonce_in_chunks_is_the_dense_one(at_once: int) -> None:
    generator = torch.Generator().manual_seed(0)
    anchors, positives = torch.randn(2, 17, 5, generator=generator, dtype=torch.float64)
    negatives = torch.randn(17, 3, 5, generator=generator, dtype=torch.float64)
    weights = torch.rand(17, generator=generator, dtype=torch.float64)
    one, two = (anchors.clone().requires_grad_() for _ in range(2))

    dense = torch.stack([(one * positives).sum(1), *(one[:, None] * negatives).sum(2).T], 1)
    expected = functional.cross_entropy(
        dense / 0.3, torch.zeros(17, dtype=torch.int64), reduction="none"
    )
    found = sampled_info_nce(
        two, positives, lambda p: negatives[p], temperature=0.3, at_once=at_once
    )
    (expected * weights).sum().backward()
    (found * weights).sum().backward()

    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(two.grad, one.grad)


def test_infonce_asks_for_few_negatives_at_a_time() -> None:
    sizes: list[int] = []

    def negatives(part: slice) -> Tensor:
        sizes.append(len(range(20)[part]))
        return torch.zeros(sizes[-1], 2, 3)

    sampled_info_nce(torch.ones(20, 3), torch.ones(20, 3), negatives, temperature=1.0, at_once=8)

    assert sizes == [8, 8, 4]


def test_picked_rows_have_the_gradient_of_an_index() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 6, 3, generator=generator)
    places = torch.tensor([[4, 4, 2, 4], [12, 12, 12, 12], [0, 7, 7, 0]])  # 12 is behind the last
    factors = torch.randn(3, 4, 3, generator=generator)
    factors[1] = 0.0
    one, two = (rows.clone().requires_grad_() for _ in range(2))

    picked = _Picked.apply(one, places)
    (picked * factors).sum().backward()
    (two.flatten(0, 1)[places.clamp(max=11)] * factors).sum().backward()

    torch.testing.assert_close(one.grad, two.grad)


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30),
    st.integers(0, 5),
    st.floats(0, 100),
)
def test_a_percentile_is_numpys(values: list[float], others: int, percent: float) -> None:
    ordered = torch.tensor([*values, *[torch.inf] * others], dtype=torch.float64).sort().values

    found = percentile(ordered, torch.tensor(len(values)), torch.tensor(percent).double())

    expected = np.percentile(values, torch.tensor(percent).double().item())
    assert found.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def shares(root: Path, *words: str) -> list[float]:
    method = new_method(MethodContext(tiny_config(root, *SHORT, *words), ALONE))
    return [method.numbers(Position(step, EPOCH, 12))["student_share"] for step in range(9)]


def test_the_teacher_is_a_copy_until_it_is_averaged(drawn_root: Path) -> None:
    words = ("method.u2pl.sup_only_epochs=1", "method.ema_decay=0.7")

    assert shares(drawn_root, *words) == pytest.approx([1, 1, 1, 1, 1 / 2, 1 / 3, 0.3, 0.3, 0.3])
    released = shares(drawn_root, *words, "method.u2pl.compat=released")
    assert released == pytest.approx([1.0] * 6 + [0.3] * 3)


def test_two_kinds_of_step_in_one_graph_are_refused(drawn_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"or method\.u2pl\.sup_only_epochs=0\."):
        train(tiny_config(drawn_root, *SHORT, "run.graph=step"), tmp_path / "run")

    assert not (tmp_path / "run").exists()


def losses(root: Path, folder: Path, *words: str) -> list[dict[str, float]]:
    """The terms of three steps without a first epoch of labelled images."""
    named = (*SHORT, "method.u2pl.sup_only_epochs=0", "optim.epochs=1")
    found: list[dict[str, float]] = []
    train(
        tiny_config(root, *named, *words),
        folder,
        on_step=lambda step: found.append({k: v.item() for k, v in step.terms.items()}),
    )
    return found


def test_half_banks_and_bfloat16_have_nearly_the_same_losses(
    drawn_root: Path, tmp_path: Path
) -> None:
    single = losses(drawn_root, tmp_path / "a", "method.u2pl.bank_precision=single")

    half = losses(drawn_root, tmp_path / "b")
    brain = losses(drawn_root, tmp_path / "c", "optim.precision=bf16", "loss=cr")

    assert half[0]["loss_contrast"] == pytest.approx(single[0]["loss_contrast"], rel=1e-4)
    for exact, rough in zip(single, brain, strict=True):
        assert rough["loss_contrast"] == pytest.approx(exact["loss_contrast"], rel=0.1)
        assert rough["loss_unlabelled"] == pytest.approx(exact["loss_unlabelled"], rel=0.1)
        assert rough["loss_inter_pixel"] > 0
    assert [row["loss_contrast"] for row in half] != [row["loss_contrast"] for row in single]


def test_epochs_are_those_of_the_run_where_its_length_is_in_steps(
    drawn_root: Path, tmp_path: Path
) -> None:
    by_epochs = losses(drawn_root, tmp_path / "a", "optim.epochs=2")

    by_steps = losses(drawn_root, tmp_path / "b", "optim.epochs=0", "optim.steps=6")

    assert by_steps == by_epochs
    assert len(by_steps) == 6


@pytest.mark.long
def test_stopped_after_every_step_a_run_ends_with_the_same_bits(
    drawn_root: Path, tmp_path: Path
) -> None:
    # Three steps of labelled images alone, then banks that are full after two or three more.
    overrides = [*SHORT, "optim.epochs=3"]
    expected = straight(drawn_root, tmp_path / "straight", overrides)

    assert in_pieces(drawn_root, tmp_path / "pieces", overrides, [1] * 8) == expected
    other = ["run.loader_workers=2", "run.augment=device", "run.memory=recompute"]
    assert straight(drawn_root, tmp_path / "other", [*overrides, *other]) == expected


@pytest.mark.long
def test_in_double_precision_one_two_and_three_ranks_have_one_objective(
    drawn_root: Path, tmp_path: Path
) -> None:
    # Checkpoints check that all ranks have equal memories.
    overrides = (*EXACT, "optim.epochs=2", "run.checkpoint_steps=1")
    one, two, three = (
        Run(drawn_root, tmp_path / f"{size}", size, overrides, is_double=True).finish()
        for size in (1, 2, 3)
    )

    tensors = one.newest()
    assert tensors["memory.negatives.pushed"].max() > 0
    for other in (two, three):
        assert other.samples() == one.samples()
        assert other.losses() == pytest.approx(one.losses(), rel=1e-11)
        for name, value in other.newest().items():
            assert (tensors[name] - value).abs().max() <= 1e-9, name
