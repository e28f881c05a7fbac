"""Every alternative reading, and that the default reading is the public function."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches
from tests.support.tiny_config import tiny_config
from tests.trainer.test_inter_pixel import STUDENT, TEACHER, random_logits
from trainer.config.compose import compose
from trainer.config.schema import (
    Classes,
    CorrelateOn,
    CutMixPairs,
    Direction,
    DivideBy,
    LossConfig,
    NormOver,
    OptimConfig,
    PixelDistance,
    Precision,
    Resolution,
    Scope,
    TrainConfig,
    ViewReduce,
)
from trainer.distributed import Ranks
from trainer.inter_pixel import inter_pixel_loss
from trainer.losses import Target, pseudo_label_loss
from trainer.methods.interface import StepInput, StepResult, TeacherStudentPair
from trainer.network.deeplab import DeepLabV3Plus
from trainer.objective import InterPixelTerm, Objective, image_losses
from trainer.optimisers.sgd import SGD
from trainer.state import new_state

ALONE = Ranks(0, 1, torch.device("cpu"))
KL = LossConfig(distance=PixelDistance.kl)


def oracle(loss: LossConfig) -> float:
    ones = torch.ones(1, 3, dtype=torch.bool)
    return float(image_losses(STUDENT.flatten(2), TEACHER.flatten(2), ones, loss)[0].item())


def pair(seed: int = 1, view: str = "s1", box: Tensor | None = None) -> TeacherStudentPair:
    student, teacher = random_logits(seed, (2, 3, 8, 8))
    return TeacherStudentPair(view, teacher, student, torch.ones(2, 8, 8, dtype=torch.bool), box)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 0.061223648204),
        ({"t2_scale": True}, 0.979578371),
        ({"log_norm": False}, 0.067261),
        ({"direction": Direction.reverse}, 0.067545227),
        ({"threshold": 0.9, "norm_over": NormOver.all}, 0.118567295),
        ({"distance": PixelDistance.cr}, 0.458272),
        ({"distance": PixelDistance.cr, "log_norm": False}, 0.503463),
        ({"threshold": 0.99}, 0.0),
        ({"min_pixels": 4}, 0.0),
    ],
)
def test_the_oracle_of_each_reading(change: dict[str, object], expected: float) -> None:
    assert oracle(replace(KL, **change)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("distance", [PixelDistance.kl, PixelDistance.cr])
def test_the_default_reading_is_the_public_function(distance: PixelDistance) -> None:
    student, teacher = random_logits(2)
    valid = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0)) > 0.2

    losses, _ = image_losses(
        student.flatten(2), teacher.flatten(2), valid.flatten(1), replace(KL, distance=distance)
    )

    public = inter_pixel_loss(student, teacher, valid=valid, distance=distance.value)
    assert losses.mean().item() == pytest.approx(public.item(), abs=1e-12)


def test_js_is_symmetric_and_below_both_orders() -> None:
    student, teacher = (x.flatten(2) for x in random_logits(4))
    ones = torch.ones(2, 20, dtype=torch.bool)
    sure = replace(KL, threshold=0.0, direction=Direction.js)

    there = image_losses(student, teacher, ones, sure)[0]
    back = image_losses(teacher, student, ones, sure)[0]

    torch.testing.assert_close(there, back)
    assert (there < image_losses(student, teacher, ones, replace(KL, threshold=0.0))[0]).all()


def test_js_has_a_finite_gradient() -> None:
    student, teacher = (x.flatten(2) for x in random_logits(4))
    student.requires_grad_(True)

    losses, _ = image_losses(
        student, teacher, torch.ones(2, 20, dtype=torch.bool), replace(KL, direction=Direction.js)
    )
    losses.sum().backward()

    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_present_classes_leave_out_channels_that_win_nowhere() -> None:
    student, teacher = (x.flatten(2) for x in random_logits(6))
    teacher[:, 2] -= 100.0  # class 2 wins nowhere
    ones = torch.ones(2, 20, dtype=torch.bool)
    sure = replace(KL, threshold=0.0)

    present = image_losses(student, teacher, ones, replace(sure, classes=Classes.present))[0]

    two = image_losses(student[:, :2], teacher[:, :2], ones, sure)[0]
    torch.testing.assert_close(present, two)


def test_cr_on_logits_correlates_the_logits() -> None:
    loss = replace(KL, distance=PixelDistance.cr, cr_on=CorrelateOn.logits, log_norm=False)
    rho = torch.corrcoef(torch.stack([TEACHER[0, 1, 0], STUDENT[0, 1, 0]]))[0, 1]

    assert oracle(loss) == pytest.approx((1.0 + 1.0 - rho.item()) / 2, abs=1e-9)


def test_two_views_are_averaged_or_summed() -> None:
    pairs = [pair(1, "s1"), pair(2, "s2")]
    mean = InterPixelTerm(KL, 2, ALONE)(pairs)

    total = InterPixelTerm(replace(KL, view_reduce=ViewReduce.sum), 2, ALONE)(pairs)

    assert total.item() == pytest.approx(2 * mean.item())


def test_outside_only_takes_the_box_out_of_omega() -> None:
    box = torch.zeros(2, 8, 8, dtype=torch.bool)
    box[:, :4] = True
    outside = InterPixelTerm(replace(KL, cutmix=CutMixPairs.outside_only), 2, ALONE)
    half = pair()
    lower = TeacherStudentPair(
        "s1", half.teacher[..., 4:, :], half.student[..., 4:, :], half.valid[:, 4:]
    )

    assert outside([pair(box=box)]).item() == pytest.approx(
        InterPixelTerm(KL, 2, ALONE)([lower]).item()
    )


def test_two_regions_is_the_mean_of_inside_and_outside() -> None:
    box = torch.zeros(2, 8, 8, dtype=torch.bool)
    box[:, :, :3] = True
    two = InterPixelTerm(replace(KL, cutmix=CutMixPairs.two_regions), 2, ALONE)
    one = InterPixelTerm(replace(KL, cutmix=CutMixPairs.outside_only), 2, ALONE)

    both = (one([pair(box=box)]) + one([pair(box=~box)])) / 2

    assert two([pair(box=box)]).item() == pytest.approx(both.item())


def test_feature_resolution_reads_every_fourth_pixel() -> None:
    coarse = InterPixelTerm(replace(KL, resolution=Resolution.feature), 2, ALONE)
    whole = pair()
    small = TeacherStudentPair(
        "s1", whole.teacher[..., ::4, ::4], whole.student[..., ::4, ::4], whole.valid[:, ::4, ::4]
    )

    assert coarse([whole]).item() == pytest.approx(InterPixelTerm(KL, 2, ALONE)([small]).item())


def test_valid_images_divides_by_images_with_an_omega() -> None:
    given = pair()
    unsure = torch.cat([given.teacher[:1], torch.zeros_like(given.teacher[:1])])
    mixed = TeacherStudentPair("s1", unsure, given.student, given.valid)
    fair = replace(KL, divide_by=DivideBy.valid_images)

    assert InterPixelTerm(fair, 2, ALONE)([mixed]).item() == pytest.approx(
        2 * InterPixelTerm(KL, 2, ALONE)([mixed]).item()
    )


def test_batch_scope_spans_all_images_with_one_distribution() -> None:
    given = pair()
    wide = [x.transpose(0, 1).flatten(1).view(1, 3, 2, 64) for x in (given.teacher, given.student)]
    joined = TeacherStudentPair("s1", wide[0], wide[1], torch.ones(1, 2, 64, dtype=torch.bool))

    spanning = InterPixelTerm(replace(KL, scope=Scope.batch), 2, ALONE)([given])

    assert spanning.item() == pytest.approx(InterPixelTerm(KL, 1, ALONE)([joined]).item())


def test_batch_scope_refuses_several_ranks() -> None:
    with pytest.raises(ValueError, match="one rank; this run has 2"):
        InterPixelTerm(replace(KL, scope=Scope.batch), 4, Ranks(0, 2, torch.device("cpu")))


def test_padding_enters_omega_only_when_asked() -> None:
    given = pair()
    padded = TeacherStudentPair(
        "s1", given.teacher, given.student, torch.zeros(2, 8, 8, dtype=torch.bool)
    )

    assert InterPixelTerm(KL, 2, ALONE)([padded]).item() == 0.0
    anyway = InterPixelTerm(replace(KL, omega_ignore_padding=False), 2, ALONE)([padded])
    assert anyway.item() == pytest.approx(InterPixelTerm(KL, 2, ALONE)([given]).item())


ONE_RANK = Ranks(0, 1, torch.device("cpu"))


def first_step(config: TrainConfig) -> StepResult:
    dataset = open_dataset(config.data)
    state = new_state(config, dataset.num_classes, ONE_RANK)
    bits = state.networks["student"].num_channel_bits
    plan = BatchPlan(batch=config.batch, stop=1, num_channel_bits=bits)
    ((labelled, unlabelled),) = batches(dataset, config.data, seed=1, plan=plan)
    objective = Objective.of(config, ONE_RANK)
    given = StepInput(state.networks, state.memory, labelled, unlabelled)
    return objective(given, weight=1.0)


def test_normalisation_layers_have_eps_1e_5_and_momentum_a_tenth() -> None:  # 1.1
    network = DeepLabV3Plus(compose(["model=resnet50"]).model, 21)

    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    assert len(layers) == 64  # with those of the head
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

    SGD.over(layer, OptimConfig(weight_decay=0.5, head_lr_factor=1.0)).step(0.1)

    for name, value in layer.named_parameters():
        assert torch.allclose(value, before[name] * (1 - 0.1 * 0.5)), name


def test_only_the_head_runs_at_its_own_rate() -> None:  # 1.4, 11.5: the rule is the name
    network = nn.ModuleDict({"backbone": nn.Linear(1, 1), "classifier": nn.Linear(1, 1)})
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for value in network.parameters():
        value.grad = torch.ones_like(value)

    SGD.over(network, OptimConfig(weight_decay=0.0, head_lr_factor=10.0)).step(0.01)

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

    terms = first_step(config).terms

    assert terms["loss_labelled"].item() == pytest.approx(torch.tensor(6.0).log().item(), rel=0.15)
    assert terms["mask_ratio"].item() == 0.0


def test_losses_are_taken_in_fp32_whatever_the_network_runs_in(drawn_root: Path) -> None:  # 8.2
    config = tiny_config(drawn_root, "loss=kl", "optim.precision=bf16")
    full = tiny_config(drawn_root, "loss=kl")
    assert config.optim.precision is Precision.bf16

    result, exact = first_step(config), first_step(full).loss
    loss = result.loss
    loss.backward()

    assert {value.dtype for name, value in result.terms.items() if "loss" in name} == {
        torch.float32
    }
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
