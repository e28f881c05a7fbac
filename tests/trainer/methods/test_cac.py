"""CAC against a plain transcription of its code, in float64; its geometry and its memory."""

import math
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.official_step import inter_pixel
from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches
from tests.support.recording_ranks import Run
from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import in_pieces, straight
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.methods.cac import _Crop, _View
from trainer.methods.interface import MethodContext, StepInput, new_method
from trainer.network.deeplab import normalise
from trainer.network.heads import Outputs
from trainer.objective import InterPixelTerm
from trainer.run import train
from trainer.state import new_state

ALONE = Ranks(0, 1, torch.device("cpu"))
EPOCH, SIDE, STEPS = 3, 4, 9  # steps; cells of a crop of 32; three steps are supervised
SHORT = (
    "method=cac",
    "loss=kl",
    "method.cac.supervised_epochs=1",
    "method.cac.saved_steps=2",
    "method.cac.weight=0.5",
    "method.confidence=0.2",
    "optim.epochs=3",
    "evaluation.every_epochs=3",
)
Block = list[tuple[Tensor, Tensor]]  # features and classes of the negatives of one step


def cells(
    net: Any, images: Tensor, padded: Tensor, mirrored: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Of every image: features above logits (D + C, 4, 4), and which cells are no padding."""
    pooled = functional.avg_pool2d(net.fuse(net.encode(normalise(images))), 2)
    phi = net.heads["projection"](pooled)
    maps = torch.cat([phi / phi.norm(dim=1, keepdim=True), net.classifier(pooled)], 1)
    real = ~padded.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).any(3)
    return [
        (m.flip(-1), r.flip(-1)) if is_mirrored else (m, r)
        for m, r, is_mirrored in zip(maps, real, mirrored, strict=True)
    ]


def semi_supervised(
    net: Any, u: Any, config: TrainConfig, past: list[Block]
) -> tuple[Tensor, Tensor]:
    """The contrastive loss and the inter-pixel term of one step, image by image."""
    settings, size = config.method.cac, config.model.head_channels // 2
    crops = [
        cells(net, u.strong[0], u.padded, u.second.mirrored[:, 0]),
        cells(net, u.second.strong, u.second.padded, u.second.mirrored[:, 1]),
    ]
    block = []
    for maps, real in (*crops[0], *crops[1]):
        kept = maps.detach()[:, real | settings.padded_negatives]
        block.append((kept[:size].T, kept[size:].argmax(0)))
    past.insert(0, block)
    del past[settings.saved_steps + 1 :]
    features, classes = map(torch.cat, zip(*chain.from_iterable(past), strict=True))
    losses: list[list[Tensor]] = [[], []]
    added = torch.zeros(())
    for i, (across, down) in enumerate((u.second.shift // 8).tolist()):
        ours = [slice(max(d, 0), SIDE + min(d, 0)) for d in (down, across)]
        theirs = [slice(s.start - d, s.stop - d) for s, d in zip(ours, (down, across), strict=True)]
        both = [crops[0][i][0][:, *ours], crops[1][i][0][:, *theirs]]
        real = crops[0][i][1][*ours] & crops[1][i][1][*theirs]
        for way, (mine, other) in enumerate((both, both[::-1])):
            other = other.detach()
            confidence, own = mine.detach()[size:].softmax(0).max(0)
            sureness = other[size:].softmax(0).max(0).values
            less = confidence < sureness
            chosen = real & less & (sureness > config.method.confidence)
            anchors, positives = mine[:size, chosen].T, other[:size, chosen].T
            own_term = ((anchors * positives).sum(1) / settings.temperature).exp()
            others = (anchors @ features.T / settings.temperature).exp()
            others = (others * (classes != own[chosen][:, None])).sum(1)
            losses[way].append(-(own_term / (own_term + others)).log())
            valid = real if settings.pairs.value == "symmetric" else real & less
            loss = config.loss
            added = added + inter_pixel(
                mine[None, size:], other[None, size:], valid[None], loss.distance.value, 0.25, 4.0
            ) / (2 * len(u.weak))
    return sum(torch.cat(each).mean() for each in losses), added


def transcribed(config: TrainConfig) -> tuple[list[float], Any]:
    """Losses and network of a run by the transcription."""
    dataset = open_dataset(config.data)
    net = new_state(config, dataset.num_classes, ALONE).networks["student"]
    optimiser = torch.optim.SGD(
        net.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4, foreach=False
    )
    views = new_method(MethodContext(config, ALONE)).views()
    plan = BatchPlan(batch=config.batch, stop=STEPS, views=views)
    losses, past = [], []
    for step, (x, u) in enumerate(batches(dataset, config.data, seed=config.seed, plan=plan)):
        loss = functional.cross_entropy(net(normalise(x.images)), x.masks, ignore_index=255)
        if step >= EPOCH:
            contrast, added = semi_supervised(net, u, config, past)
            loss = loss + config.method.cac.weight * contrast + added
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = config.lr * (1 - step / STEPS) ** 0.9
        optimiser.step()
    return losses, net


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    "more", [(), ("pairs=symmetric", "padded_negatives=true"), ("saved_steps=0",)], ids=" ".join
)
def test_nine_steps_over_supervision_and_a_full_bank_are_those_of_the_transcription(
    drawn_root: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    named = [f"method.cac.{name}" for name in more]
    config = tiny_config(drawn_root, *SHORT, "optim.head_lr_factor=1", *named)
    losses, net = transcribed(config)
    ours: list[dict[str, Tensor]] = []

    train(config, tmp_path, on_step=lambda step: ours.append(step.terms))

    tensors = torch.load(tmp_path / "checkpoints" / "step-00000009.pt", weights_only=True)[
        "tensors"
    ]
    start, moved = new_state(config, 6, ALONE).tensors(), 0.0
    assert [terms["loss"].item() for terms in ours] == pytest.approx(losses, abs=1e-9)
    assert all("loss_contrast" not in terms for terms in ours[:EPOCH])
    assert all(terms["loss_contrast"] > 1.0 < terms["mask_ratio"] * 3 for terms in ours[EPOCH:])
    assert any(terms["loss_inter_pixel"] > 1e-5 for terms in ours)
    for name, expected in net.state_dict().items():
        key = f"network.student.{name}"
        assert (tensors[key] - expected).abs().max().item() <= 1e-9, key
        if "projection" in name:
            moved = max(moved, (expected - start[key]).abs().max().item())
    assert moved > 1e-3


def batch_of(config: TrainConfig) -> tuple[Any, Any]:
    """The first images of a run."""
    plan = BatchPlan(batch=12, stop=1, views=new_method(MethodContext(config, ALONE)).views())
    return next(iter(batches(open_dataset(config.data), config.data, seed=1, plan=plan)))


class Identity:
    """A network whose features are the pixels."""

    def outputs(self, images: Tensor, mirrored: Tensor) -> Outputs:
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        pooled = functional.avg_pool2d(images, 8)
        return Outputs(images, images, projection=pooled, coarse=pooled)


def test_features_of_the_identity_are_equal_where_two_crops_overlap(drawn_root: Path) -> None:
    _, u = batch_of(tiny_config(drawn_root, *SHORT, "optim.batch=12"))
    network: Any = Identity()
    first = _Crop.of(network, u.weak, u.padded, u.second.mirrored[:, 0])
    second = _Crop.of(network, u.second.weak, u.second.padded, u.second.mirrored[:, 1])
    cells_of_shift = u.second.shift // 8

    for view in (
        _View.of(first, second, cells_of_shift),
        _View.of(second, first, -cells_of_shift),
    ):
        same = (view.features - view.positives).abs().amax(1) < 1e-6
        shared = (SIDE - cells_of_shift.abs()).prod(1)
        counted = view.other.valid.sum((1, 2))
        assert same[view.other.valid].all()
        assert not same.all()
        assert (counted <= shared).all()
        assert ((counted == shared) == ~u.padded.any((1, 2))).any()
        assert (counted < shared).any()  # padding
        assert view.other.valid.sum() > 40


@pytest.mark.parametrize("pairs", ["directional", "symmetric"])
def test_equal_crops_without_colour_have_no_loss_but_the_labelled_one(
    drawn_root: Path, pairs: str
) -> None:
    overrides = ("method.cac.supervised_epochs=0", f"method.cac.pairs={pairs}", "loss.threshold=0")
    config = tiny_config(drawn_root, *SHORT, *overrides)
    x, u = batch_of(config)
    second = replace(
        u.second,
        strong=u.weak,
        padded=u.padded,
        shift=torch.zeros_like(u.second.shift),
        mirrored=u.second.mirrored[:, :1].expand(-1, 2),
    )
    state = new_state(config, 6, ALONE)
    method = new_method(MethodContext(config, ALONE))

    given = StepInput(state.networks, state.memory, x, replace(u, strong=(u.weak,), second=second))
    result = method.step(given)

    assert InterPixelTerm(config.loss, config.batch, ALONE)(result.pairs) == 0.0
    assert result.terms["loss_contrast"] == 0.0
    assert [pair.view for pair in result.pairs] == ["2to1", "1to2"]
    assert bool(result.pairs[0].valid.any()) == (pairs == "symmetric")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("loss", ["none", "kl", "cr"])
def test_every_loss_runs(drawn_root: Path, tmp_path: Path, precision: str, loss: str) -> None:
    words = (f"loss={loss}", f"optim.precision={precision}", "method.cac.supervised_epochs=0")
    terms: list[dict[str, Tensor]] = []

    train(
        tiny_config(drawn_root, *SHORT, *words, "optim.epochs=1", "evaluation.every_epochs=1"),
        tmp_path,
        on_step=lambda step: terms.append(step.terms),
    )

    assert all(math.isfinite(value) for each in terms for value in each.values())
    assert all(each["loss_contrast"] > 1.0 for each in terms)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("run.graph=step", r"or method\.cac\.supervised_epochs=0\."),
        ("loss.resolution=feature", r"use loss\.resolution=crop\."),
    ],
)
def test_what_has_no_meaning_is_refused_before_anything_is_written(
    drawn_root: Path, tmp_path: Path, word: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        train(tiny_config(drawn_root, *SHORT, word), tmp_path / "run")

    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_stopped_after_every_step_a_run_ends_with_the_same_bits(
    drawn_root: Path, tmp_path: Path
) -> None:
    overrides = [*SHORT, "method.cac.saved_steps=1"]
    expected = straight(drawn_root, tmp_path / "straight", overrides)

    assert in_pieces(drawn_root, tmp_path / "pieces", overrides, [1] * 8) == expected
    other = ["run.loader_workers=2", "run.augment=device", "run.memory=recompute"]
    assert straight(drawn_root, tmp_path / "other", [*overrides, *other]) == expected


@pytest.mark.long
def test_in_double_precision_one_two_and_three_ranks_have_one_objective_and_one_bank(
    drawn_root: Path, tmp_path: Path
) -> None:
    one, two, three = (
        Run(drawn_root, tmp_path / f"{size}", size, SHORT, is_double=True).finish()
        for size in (1, 2, 3)
    )

    tensors = one.newest()
    assert (tensors["memory.negatives.classes"] > 0).any()
    for other in (two, three):
        assert other.samples() == one.samples()
        assert other.losses() == pytest.approx(one.losses(), rel=1e-11)
        for name, value in other.newest().items():
            assert (tensors[name] - value).abs().max() <= 1e-9, name
