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
