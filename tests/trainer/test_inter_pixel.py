"""Eqs. 2 to 5 against values computed by hand."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer import inter_pixel
from trainer.inter_pixel import inter_pixel_loss

TEACHER = torch.tensor([[2.0, 0.0, 4.0], [0.0, 3.0, -4.0]], dtype=torch.float64).view(1, 2, 1, 3)
STUDENT = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, -1.0]], dtype=torch.float64).view(1, 2, 1, 3)


def random_logits(seed: int, shape: tuple[int, ...] = (2, 3, 4, 5)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=torch.float64) * 4.0
    return student, teacher


@pytest.mark.parametrize(
    ("distance", "threshold", "expected"),
    [
        ("kl", 0.8, 0.061223648204),  # three pixels are confident
        ("kl", 0.9, 0.136726899),  # two
        ("kl", 0.99, 0.0),  # one: an image without a relation adds nothing
        ("cr", 0.8, 0.458272),
    ],
)
def test_the_oracle_of_eq_2(distance: str, threshold: float, expected: float) -> None:
    loss = inter_pixel_loss(STUDENT, TEACHER, distance=distance, threshold=threshold)

    assert loss.item() == pytest.approx(expected, abs=1e-6 if distance == "cr" else 1e-9)


def test_the_kl_oracle_holds_to_ten_digits() -> None:
    # By hand: softmax over the three pixels of each row / 4, KL, mean over 2 classes, over ln 3.
    rows = []
    for p, q in ((TEACHER[0, 0, 0], STUDENT[0, 0, 0]), (TEACHER[0, 1, 0], STUDENT[0, 1, 0])):
        a = (p / 4).exp() / (p / 4).exp().sum()
        b = (q / 4).exp() / (q / 4).exp().sum()
        rows.append((a * (a / b).log()).sum())
    by_hand = sum(rows) / (2 * torch.tensor(3.0, dtype=torch.float64).log())

    loss = inter_pixel_loss(STUDENT, TEACHER)

    assert abs(loss.item() - by_hand.item()) < 1e-10
    assert loss.item() == pytest.approx(0.061223648204, abs=1e-12)


def test_cr_equals_one_minus_pearson_by_hand() -> None:
    a = (TEACHER[0, :, 0] / 4).softmax(1)
    b = (STUDENT[0, :, 0] / 4).softmax(1)
    rho = torch.corrcoef(torch.stack([a[1], b[1]]))[0, 1]  # the first student row is constant: 0
    by_hand = ((1 - 0) + (1 - rho)) / (2 * torch.tensor(3.0, dtype=torch.float64).log())

    loss = inter_pixel_loss(STUDENT, TEACHER, distance="cr")

    assert abs(loss.item() - by_hand.item()) < 1e-10


def test_the_gradient_oracle() -> None:
    student = STUDENT.clone().requires_grad_(True)

    inter_pixel_loss(student, TEACHER).backward()

    expected = torch.tensor(
        [[0.00297392, 0.01672674, -0.01970066], [0.00054637, -0.01438830, 0.01384193]],
        dtype=torch.float64,
    )
    assert student.grad is not None
    torch.testing.assert_close(student.grad.view(2, 3), expected, atol=5e-9, rtol=0)


def test_the_gradient_is_the_difference_of_the_distributions() -> None:
    student, teacher = random_logits(3)
    student.requires_grad_(True)

    inter_pixel_loss(student, teacher, threshold=0.6).backward()

    omega = (teacher.softmax(1).amax(1) > 0.6).flatten(1)[:, None]
    count = omega.sum(2, keepdim=True).double()
    p, q = (
        (x.detach().flatten(2) / 4).masked_fill(~omega, -torch.inf).softmax(2)
        for x in (teacher, student)
    )
    expected = (q - p) / (4.0 * 3 * count.log() * 2)  # t, C, ln |Omega|, two images
    assert student.grad is not None
    torch.testing.assert_close(student.grad.flatten(2), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("distance", ["kl", "cr"])
@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5))
def test_a_constant_added_to_a_student_channel_changes_nothing(
    distance: str, seed: int, shift: float
) -> None:
    student, teacher = random_logits(seed)
    shifted = student.clone()
    shifted[:, 1] += shift

    before, after = (inter_pixel_loss(s, teacher, distance=distance) for s in (student, shifted))

    assert after.item() == pytest.approx(before.item(), abs=1e-9)


@given(seed=st.integers(0, 1000))
def test_a_student_equal_to_its_teacher_costs_nothing(seed: int) -> None:
    _, teacher = random_logits(seed)

    assert inter_pixel_loss(teacher.clone(), teacher).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("distance", ["kl", "cr"])
@given(seed=st.integers(0, 1000))
def test_a_permutation_of_pixels_leaves_the_loss(distance: str, seed: int) -> None:
    student, teacher = random_logits(seed)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    moved = [x.flatten(2)[:, :, order].view_as(x) for x in (student, teacher)]

    before = inter_pixel_loss(student, teacher, distance=distance)

    assert inter_pixel_loss(*moved, distance=distance).item() == pytest.approx(
        before.item(), abs=1e-9
    )


@given(seed=st.integers(0, 1000))
def test_kl_is_never_negative(seed: int) -> None:
    assert inter_pixel_loss(*random_logits(seed)).item() >= -1e-15


def test_pixels_outside_omega_get_no_gradient() -> None:
    student, teacher = random_logits(5)
    student.requires_grad_(True)
    valid = torch.ones(2, 4, 5, dtype=torch.bool)
    valid[:, 0] = False

    inter_pixel_loss(student, teacher, valid=valid, threshold=0.6).backward()

    outside = ~((teacher.softmax(1).amax(1) > 0.6) & valid)
    assert student.grad is not None
    assert (student.grad.transpose(0, 1)[:, outside] == 0).all()
    assert (student.grad != 0).any()


@pytest.mark.parametrize("distance", ["kl", "cr"])
def test_an_unsure_teacher_gives_zero_and_a_whole_graph(distance: str) -> None:
    student = torch.randn(1, 3, 4, 4, requires_grad=True)

    loss = inter_pixel_loss(student, torch.zeros(1, 3, 4, 4), distance=distance)
    loss.backward()

    assert loss.item() == 0.0
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_the_mean_runs_over_all_images_also_those_without_omega() -> None:
    student, teacher = random_logits(7, (1, 3, 4, 5))
    two = torch.cat([teacher, torch.zeros_like(teacher)])

    loss = inter_pixel_loss(torch.cat([student, student]), two)

    assert loss.item() == pytest.approx(inter_pixel_loss(student, teacher).item() / 2)


def test_shapes_that_differ_are_refused_with_both_named() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 4\) and \(1, 2, 4, 3\)"):
        inter_pixel_loss(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 4, 3))


def grown_logits(size: int, noise: float) -> tuple[Tensor, Tensor]:
    """Smooth float32 maps of a student that is `noise` away from its teacher, (1, 3, S, S)."""
    generator = torch.Generator().manual_seed(0)
    coarse = 4.0 * torch.randn(1, 3, size // 8 + 1, size // 8 + 1, generator=generator)
    moved = coarse + noise * torch.randn(coarse.shape, generator=generator)
    student, teacher = (
        torch.nn.functional.interpolate(x, (size, size), mode="bilinear", align_corners=True)
        for x in (moved, coarse)
    )
    return student, teacher


def loss_and_gradient(student: Tensor, teacher: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    student = student.detach().clone().requires_grad_(True)
    loss = inter_pixel_loss(student, teacher, **options)
    loss.backward()
    assert student.grad is not None
    return loss.detach(), student.grad


@pytest.mark.parametrize("distance", ["kl", "cr"])
@pytest.mark.parametrize("noise", [0.01, 0.05, 4.0])
def test_float32_is_exact_to_five_digits_at_801_pixels(distance: str, noise: float) -> None:
    student, teacher = grown_logits(801, noise)
    valid = torch.rand(1, 801, 801, generator=torch.Generator().manual_seed(1)) < 0.7
    options = {"distance": distance, "threshold": 0.0, "valid": valid}

    loss, gradient = loss_and_gradient(student, teacher, **options)

    exact, slope = loss_and_gradient(student.double(), teacher.double(), **options)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert (gradient.double() - slope).norm() < 1e-5 * slope.norm()


@pytest.mark.parametrize("distance", ["kl", "cr"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_the_loss_of_their_values(
    distance: str, dtype: torch.dtype
) -> None:
    student, teacher = (x.to(dtype) for x in grown_logits(321, 1.0))  # |Omega| is above 65,504

    loss, gradient = loss_and_gradient(student, teacher, distance=distance, threshold=0.0)

    exact, slope = loss_and_gradient(
        student.float(), teacher.float(), distance=distance, threshold=0.0
    )
    assert loss.dtype == torch.float32
    assert loss.item() == exact.item() > 0
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, slope.to(dtype))


@pytest.mark.parametrize("distance", ["kl", "cr"])
def test_backward_may_run_twice_and_agrees_with_finite_differences(distance: str) -> None:
    student, teacher = random_logits(3)
    student.requires_grad_(True)
    loss = inter_pixel_loss(student, teacher, distance=distance, threshold=0.5)

    (once,) = torch.autograd.grad(loss, student, retain_graph=True)
    (twice,) = torch.autograd.grad(loss, student)

    assert torch.equal(once, twice)
    assert torch.autograd.gradcheck(
        lambda x: inter_pixel_loss(x, teacher, distance=distance, threshold=0.5), (student,)
    )


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    student, teacher = random_logits(3)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss = weight * inter_pixel_loss(student.requires_grad_(True), teacher)
    (slope,) = torch.autograd.grad(loss, student, create_graph=True)

    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.square().sum().backward()


# The compiler itself makes an instance of every autograd function, which torch then warns of.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("distance", ["kl", "cr"])
def test_function_transforms_and_whole_graph_compilation_give_the_same_gradient(
    distance: str,
) -> None:
    student, teacher = random_logits(3)

    def loss_of(x: Tensor) -> Tensor:
        return inter_pixel_loss(x, teacher, distance=distance, threshold=0.5)

    _, expected = loss_and_gradient(student, teacher, distance=distance, threshold=0.5)
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    (slope,) = torch.autograd.grad(compiled(student.requires_grad_(True)), student)

    close = {"atol": 1e-14, "rtol": 1e-12}
    torch.testing.assert_close(torch.func.grad(loss_of)(student.detach()), expected, **close)
    torch.testing.assert_close(slope, expected, **close)


@pytest.mark.parametrize("distance", ["kl", "cr"])
def test_a_class_masked_with_minus_infinity_adds_nothing(distance: str) -> None:
    student, teacher = random_logits(4, (1, 3, 6, 6))
    masked = [torch.cat([x, torch.full((1, 1, 6, 6), -torch.inf)], 1) for x in (student, teacher)]
    expected, slope = loss_and_gradient(student, teacher, distance=distance, threshold=0.0)

    loss, gradient = loss_and_gradient(*masked, distance=distance, threshold=0.0)

    if distance == "kl":  # a constant channel correlates with nothing, so CR counts it as one
        assert loss.item() == pytest.approx(expected.item() * 3 / 4)
    assert torch.isfinite(loss)
    torch.testing.assert_close(gradient[:, :3], slope * 3 / 4)
    assert (gradient[:, 3] == 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.0}, "temperature is 0.0; it divides the logits"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"valid": torch.ones(2, 4, 5)}, r"valid is torch.float32 .* needs to be torch.bool"),
        ({"valid": torch.ones(2, 1, 5, dtype=torch.bool)}, r"shape \(2, 1, 5\).* = \(2, 4, 5\)"),
        ({"distance": "l2"}, "Unknown distance 'l2'; known: kl, cr"),
    ],
)
def test_what_has_no_meaning_is_refused_in_one_sentence(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        inter_pixel_loss(*random_logits(0), **change)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)])
def test_logits_of_nothing_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no image, class or pixel"):
        inter_pixel_loss(torch.zeros(shape), torch.zeros(shape))


def test_the_file_works_alone_in_an_empty_folder(tmp_path: Path) -> None:
    shutil.copy(inter_pixel.__file__, tmp_path / "inter_pixel.py")
    probe = (
        "import torch, sys, inter_pixel;"
        "print(inter_pixel.inter_pixel_loss(torch.ones(1,2,3,3), torch.ones(1,2,3,3)).item());"
        "assert not {'trainer', 'datasets', 'sweeps', 'ray'} & set(sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout.strip()) == (0, "0.0")
