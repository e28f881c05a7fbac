"""Sentences of the methods' description (part_a) that no other test takes up."""

from pathlib import Path

import pytest
import torch
from torch import nn

from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches
from tests.tiny import tiny_config
from trainer.config.compose import compose
from trainer.config.schema import OptimConfig, Precision, TrainConfig
from trainer.distributed import Ranks
from trainer.inter_pixel import inter_pixel_loss
from trainer.losses import Target, pseudo_label_loss
from trainer.methods.interface import Networks
from trainer.network.deeplab import DeepLabV3Plus
from trainer.objective import Objective
from trainer.state import Descent, new_state

ALONE = Ranks(0, 1, torch.device("cpu"))


def first_step(config: TrainConfig) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    dataset = open_dataset(config.data)
    state = new_state(config, dataset.num_classes, ALONE)
    bits = state.student.num_channel_bits
    plan = BatchPlan(batch=config.batch, stop=1, num_channel_bits=bits)
    ((labelled, unlabelled),) = batches(dataset, config.data, seed=1, plan=plan)
    objective = Objective.of(config, ALONE)
    return objective(Networks(state.student, state.ema), labelled, unlabelled, weight=1.0)


def test_normalisation_layers_have_eps_1e_5_and_momentum_a_tenth() -> None:  # 1.1
    network = DeepLabV3Plus(compose(["model=resnet50"]).model, 21)

    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    assert len(layers) == 64  # with those of the head, as the field notes count
    assert {(layer.eps, layer.momentum) for layer in layers} == {(1e-5, 0.1)}


def test_the_decoder_joins_low_features_first() -> None:  # 1.1: [c1 (48), aspp (256)]
    network = DeepLabV3Plus(tiny_config(Path("unused")).model, 6).eval()
    seen: list[torch.Tensor] = []
    network.fuse.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.reduce.register_forward_hook(lambda _m, _given, found: seen.append(found))

    with torch.no_grad():
        network(torch.randn(1, 3, 32, 32))

    low, joined = seen
    assert torch.equal(joined[:, : low.shape[1]], low)


def test_the_network_drops_nothing_by_itself() -> None:  # 1.1: no dropout anywhere
    network = DeepLabV3Plus(compose(["model=resnet101"]).model, 19)

    assert not [m for m in network.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]


def test_every_parameter_decays_biases_and_batch_norm_too() -> None:  # 1.4
    layer = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    before = {name: value.detach().clone() for name, value in layer.named_parameters()}
    for value in layer.parameters():
        value.grad = torch.zeros_like(value)

    Descent.over(layer, OptimConfig(weight_decay=0.5, head_lr_factor=1.0)).step(0.1)

    for name, value in layer.named_parameters():
        assert torch.allclose(value, before[name] * (1 - 0.1 * 0.5)), name


def test_only_the_head_runs_at_its_own_rate() -> None:  # 1.4, 11.5: the rule is the name
    network = nn.ModuleDict({"backbone": nn.Linear(1, 1), "classifier": nn.Linear(1, 1)})
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for value in network.parameters():
        value.grad = torch.ones_like(value)

    Descent.over(network, OptimConfig(weight_decay=0.0, head_lr_factor=10.0)).step(0.01)

    for name, value in network.named_parameters():
        rate = 0.01 if "backbone" in name else 0.1
        assert torch.allclose(value, before[name] - rate), name


@pytest.mark.parametrize(("confidence", "expected"), [(0.5, 0.75), (0.51, 0.25), (0.0, 1.0)])
def test_a_pseudo_label_counts_from_its_threshold_on(  # 4.3: the comparison is >=
    confidence: float, expected: float
) -> None:
    logits = torch.zeros(1, 2, 1, 4)
    top = torch.tensor([[[0.5, 0.9, 0.4, 0.5]]])
    target = Target(logits, top, torch.zeros(1, 1, 4, dtype=torch.int64), top > 0)

    loss = pseudo_label_loss(logits, target, confidence=confidence, num_pixels=torch.tensor(4.0))

    assert loss.item() == pytest.approx(expected * torch.tensor(2.0).log().item())


def test_omega_holds_what_is_strictly_above_its_threshold() -> None:  # 8.2 step 1
    teacher = torch.zeros(1, 2, 1, 3)  # two classes, one half each
    student = torch.tensor([[[[0.0, 1.0, 2.0]], [[0.0, 0.0, 0.0]]]])

    at, below = (inter_pixel_loss(student, teacher, threshold=t) for t in (0.5, 0.4999))

    assert at.item() == 0.0
    assert below.item() > 0.0


@pytest.mark.parametrize("method", ["fixmatch", "unimatch_star", "unimatch"])
def test_the_first_losses_are_those_of_guessing(drawn_root: Path, method: str) -> None:  # 12.2
    config = tiny_config(drawn_root, f"method={method}", "method.confidence=0.95")

    _, terms = first_step(config)

    assert terms["loss_labelled"].item() == pytest.approx(torch.tensor(6.0).log().item(), rel=0.15)
    assert terms["mask_ratio"].item() == 0.0


def test_losses_are_taken_in_fp32_whatever_the_network_runs_in(drawn_root: Path) -> None:  # 8.2
    config = tiny_config(drawn_root, "loss=kl", "optim.precision=bf16")
    full = tiny_config(drawn_root, "loss=kl")
    assert config.optim.precision is Precision.bf16

    loss, terms = first_step(config)
    loss.backward()
    exact, _ = first_step(full)

    assert {value.dtype for name, value in terms.items() if "loss" in name} == {torch.float32}
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    assert loss.item() != exact.item()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("distance", ["kl", "cr"])
def test_the_loss_of_many_classes_is_the_mean_over_single_ones(  # 8.2 step 4
    distance: str, threads: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 6, 7, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)

    loss = inter_pixel_loss(student, teacher, distance=distance, threshold=0.0)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.set_num_threads(before)

    parts = []
    for k in range(5):
        one = student[:, k : k + 1].detach().requires_grad_()
        # A class alone would be sure everywhere, so the threshold of 0 keeps Omega the same.
        part = inter_pixel_loss(one, teacher[:, k : k + 1], distance=distance, threshold=0.0)
        parts.append((part, torch.autograd.grad(part, one)[0]))
    assert loss.item() == pytest.approx(sum(p.item() for p, _ in parts) / 5, rel=1e-12)
    assert torch.allclose(gradient, torch.cat([g for _, g in parts], 1) / 5, rtol=1e-10)
