"""The method in the style of PC2Seg against a plain transcription, in float64; its negatives."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.official_step import inter_pixel
from datasets.augment.boxes import uniform_noise
from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches
from tests.support.recording_ranks import Run
from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import in_pieces, straight
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.methods.interface import MethodContext, Position, StepInput, new_method
from trainer.methods.pc2seg_style import Pc2SegStyle, _Sampled
from trainer.network.deeplab import normalise
from trainer.objective import InterPixelTerm
from trainer.run import train
from trainer.state import new_state

ALONE = Ranks(0, 1, torch.device("cpu"))
EPOCH, CELLS, STEPS = 3, 16, 6
SHORT = (
    "method=pc2seg_style",
    "loss=kl",
    "method.pc2seg_style.anchors=12",
    "method.pc2seg_style.negatives=7",
    "method.pc2seg_style.ramp_epochs=1",
    "method.pc2seg_style.cutout=true",
    "optim.epochs=2",
    "evaluation.every_epochs=2",
)


def outputs(net: Any, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits; features of length one (B, cells, D); probabilities (B, cells, C)."""
    fused = net.fuse(net.encode(normalise(images)))
    logits = functional.interpolate(net.classifier(fused), images.shape[2:], mode="nearest")
    pooled = functional.avg_pool2d(fused, 2)
    phi = net.heads["projection"](pooled)
    phi = phi / phi.norm(dim=1, keepdim=True)
    probabilities = net.classifier(pooled).softmax(1)
    return logits, phi.flatten(2).mT, probabilities.flatten(2).mT.detach()


def contrast(u: Any, hidden: Tensor, maps: Any, config: TrainConfig) -> Tensor:
    """InfoNCE of both views, anchor by anchor."""
    settings = config.method.pc2seg_style
    (_, weak, p), (_, strong, _) = maps
    real = ~hidden.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).any(3).flatten(1)
    noise = uniform_noise(u.numbers[:, 0], torch.Size((len(real), 3, 4, 4))).double().flatten(2)
    sampled = []  # image and cell
    for b in range(len(real)):
        order = sorted(range(CELLS), key=lambda c, b=b: (not real[b, c], float(noise[b, 0, c]), c))
        sampled += [(b, c) for c in order[: settings.anchors]]
    losses = []
    for b, c in sampled:
        if not real[b, c]:
            continue
        key = noise[b, 1, c] + noise[b, 2, c] * 2.0**-24
        gumbel = -(
            -(1 - uniform_noise(key[None], torch.Size((1, 1, 1, len(sampled)))))[0, 0, 0].log()
        ).log()
        scores = {
            k: float(((1 - p[b, c] @ p[i, j]).clamp(min=0) + 1e-6).log() + gumbel[k])
            for k, (i, j) in enumerate(sampled)
            if i != b and real[i, j]
        }
        best = sorted(scores, key=lambda k: -scores[k])[: settings.negatives]
        for mine, other in ((weak, strong), (strong, weak)):
            rows = torch.stack([other[sampled[k]] for k in best]).detach()
            logits = torch.cat([other[b, c].detach()[None], rows]) @ mine[b, c]
            losses.append(-(logits / settings.temperature).log_softmax(0)[0])
    return torch.stack(losses).mean()


def transcribed(config: TrainConfig) -> tuple[list[float], Any]:
    """Losses and network of a run by the transcription."""
    dataset = open_dataset(config.data)
    net = new_state(config, dataset.num_classes, ALONE).networks["student"]
    optimiser = torch.optim.SGD(
        net.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4, foreach=False
    )
    views = new_method(MethodContext(config, ALONE)).views()
    plan = BatchPlan(batch=config.batch, stop=STEPS, views=views)
    losses, settings = [], config.method.pc2seg_style
    for step, (x, u) in enumerate(batches(dataset, config.data, seed=config.seed, plan=plan)):
        loss = functional.cross_entropy(net(normalise(x.images)), x.masks, ignore_index=255)
        maps = [outputs(net, images) for images in (u.weak, u.strong[0])]
        hidden = u.padded | u.holes[0] if settings.cutout else u.padded
        p, q = maps[0][0].detach(), maps[1][0]
        gaps = (p.softmax(1) - q.softmax(1)).square().sum(1)[~hidden].mean()
        ramp = math.exp(-5 * (1 - step / EPOCH) ** 2) if step < EPOCH else 1.0
        loss = loss + ramp * gaps + settings.contrast_weight * contrast(u, hidden, maps, config)
        loss = loss + ramp * inter_pixel(q, p, ~hidden, "kl", 0.25, 4.0)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = config.lr * (1 - step / STEPS) ** 0.9
        optimiser.step()
    return losses, net


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("cutout", ["true", "false"])
def test_six_steps_give_the_losses_and_weights_of_the_transcription(
    drawn_root: Path, tmp_path: Path, cutout: str
) -> None:
    more = ("optim.head_lr_factor=1", f"method.pc2seg_style.cutout={cutout}")
    config = tiny_config(drawn_root, *SHORT, *more)
    losses, net = transcribed(config)
    ours: list[float] = []

    train(config, tmp_path, on_step=lambda step: ours.append(step.terms["loss"].item()))

    tensors = torch.load(tmp_path / "checkpoints" / "step-00000006.pt", weights_only=True)[
        "tensors"
    ]
    start, moved = new_state(config, 6, ALONE).tensors(), 0.0
    assert ours == pytest.approx(losses, abs=1e-9)
    for name, expected in net.state_dict().items():
        key = f"network.student.{name}"
        assert (tensors[key] - expected).abs().max().item() <= 1e-9, key
        if "projection" in name:
            moved = max(moved, (expected - start[key]).abs().max().item())
    assert moved > 1e-3


def test_negatives_are_of_other_images_and_of_other_classes_while_there_are_enough(
    drawn_root: Path,
) -> None:
    images, cells = 4, 12
    there = torch.ones(images, 4, 4, dtype=torch.bool)
    there[2, 1:] = False  # four cells that are no padding
    sampled = _Sampled.of(torch.arange(images) / images, there, cells)
    classes = sampled.places % 3
    real, image = sampled.is_real.flatten(), torch.arange(images).repeat_interleave(cells)
    can_be = (image[:, None] != image) & real
    differs = can_be & (classes.flatten()[:, None] != classes.flatten())
    count = int(differs[real].sum(1).min())
    config = tiny_config(drawn_root, *SHORT, f"method.pc2seg_style.negatives={count}")
    method = Pc2SegStyle(MethodContext(config, ALONE))

    chosen = method._negatives(sampled, functional.one_hot(classes, 3).float())

    assert sampled.is_real.sum(1).tolist() == [12, 12, 4, 12]
    assert len({tuple(row) for row in sampled.places.tolist()}) == images
    assert sampled.keys.unique().numel() == images * cells
    assert (chosen.sum(1) == count).all()
    assert not (chosen & ~differs)[real].any()
    assert chosen.unique(dim=0).shape[0] > images  # each anchor draws its own
    assert (chosen.any(0) == real).all()


def test_equal_views_have_no_distance_and_no_inter_pixel_loss(drawn_root: Path) -> None:
    config = tiny_config(drawn_root, *SHORT, "loss.threshold=0")
    method, state = new_method(MethodContext(config, ALONE)), new_state(config, 6, ALONE)
    plan = BatchPlan(batch=config.batch, stop=1, views=method.views())
    ((x, u),) = batches(open_dataset(config.data), config.data, seed=1, plan=plan)
    numbers = method.numbers(Position(0, 1, 1))

    given = StepInput(state.networks, {}, x, replace(u, strong=(u.weak,)), numbers)
    result = method.step(given)

    assert result.terms["loss_consistency"] == 0.0 < result.terms["loss_contrast"]
    assert InterPixelTerm(config.loss, config.batch, ALONE)(result.pairs) == 0.0
    assert result.pairs[0].valid.any()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("loss", ["none", "kl", "cr"])
def test_every_loss_runs(drawn_root: Path, tmp_path: Path, precision: str, loss: str) -> None:
    words = (f"loss={loss}", f"optim.precision={precision}", "optim.epochs=1")
    terms: list[dict[str, Tensor]] = []

    train(
        tiny_config(drawn_root, *SHORT, *words, "evaluation.every_epochs=1"),
        tmp_path,
        on_step=lambda step: terms.append(step.terms),
    )

    assert all(math.isfinite(value) for each in terms for value in each.values())
    assert all(each["loss_contrast"] > 0.5 for each in terms)


@pytest.mark.long
def test_stopped_after_every_step_a_run_ends_with_the_same_bits(
    drawn_root: Path, tmp_path: Path
) -> None:
    expected = straight(drawn_root, tmp_path / "straight", [*SHORT])

    assert in_pieces(drawn_root, tmp_path / "pieces", [*SHORT], [1] * 5) == expected
    other = ["run.loader_workers=2", "run.augment=device", "run.memory=recompute"]
    assert straight(drawn_root, tmp_path / "other", [*SHORT, *other]) == expected


@pytest.mark.long
def test_in_double_precision_one_two_and_three_ranks_have_one_objective(
    drawn_root: Path, tmp_path: Path
) -> None:
    one, two, three = (
        Run(drawn_root, tmp_path / f"{size}", size, SHORT, is_double=True).finish()
        for size in (1, 2, 3)
    )

    tensors = one.newest("network.")
    for other in (two, three):
        assert other.samples() == one.samples()
        assert other.losses() == pytest.approx(one.losses(), rel=1e-11)
        for name, value in other.newest("network.").items():
            assert (tensors[name] - value).abs().max() <= 1e-9, name
