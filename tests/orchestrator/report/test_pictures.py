"""The pictures: which images are shown, where their boxes lie, and what runs really predict."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestrator.planning.plan import make_plan
from orchestrator.report.data import gather
from orchestrator.report.page import report
from orchestrator.report.pictures import (
    Box,
    boxes,
    compared_runs,
    image_miou_percent,
    most_classes,
    picture_grid,
)
from orchestrator.results.store import read_rows
from orchestrator.storage.local_root import LocalRoot

masks = st.integers(0, 2**32).map(
    lambda seed: np.random.default_rng(seed).choice([0, 1, 2, 255], (3, 12, 9)).astype(np.uint8)
)


@given(masks)
def test_the_box_is_the_window_with_most_pixels_where_one_is_right(three):
    truth, base, new = three
    differs = ((base == truth) != (new == truth)) & (truth != 255)

    first, *rest = boxes(truth, base, new)

    counts = {
        (top, left): differs[top : top + 4, left : left + 3].sum()
        for top in range(9)
        for left in range(7)
    }
    assert counts[first.top, first.left] == max(counts.values())
    for box in rest:
        apart = abs(box.top - first.top) >= 4 or abs(box.left - first.left) >= 3
        assert apart
        assert 2 * counts[box.top, box.left] >= counts[first.top, first.left]


def test_two_masks_that_agree_have_no_box():
    mask = np.ones((9, 9), np.uint8)

    assert boxes(mask, mask, mask) == []


def test_iou_is_of_the_counted_pixels_and_of_the_classes_that_either_shows():
    truth = np.array([[1, 1, 255, 2]], np.uint8)
    predicted = np.array([[1, 0, 0, 0]], np.uint8)

    # Class 0: 0 of 2 pixels, class 1: 1 of 2, class 2: 0 of 1; class 3 is not to be seen.
    assert image_miou_percent(truth, predicted) == pytest.approx(100 * 0.5 / 3)
    assert image_miou_percent(truth, truth) == 100.0
    assert image_miou_percent(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8)) == 0.0


def test_the_images_shown_have_most_classes_and_earlier_ones_go_first():
    one, two, three = (np.arange(200, dtype=np.uint8).reshape(10, 20) % n for n in (1, 2, 3))
    ignored = np.where(two == 1, 255, two).astype(np.uint8)
    speck = two.copy()
    speck[0, 0] = 2  # half a hundredth of the mask

    assert most_classes([one, two, ignored, three, speck, two], 3) == [3, 1, 4]
    assert most_classes([ignored, one], 3) == [0, 1]


def test_a_box_keeps_inside_the_image():
    truth = np.zeros((10, 10), np.uint8)
    new = truth.copy()
    new[9, 9] = 1

    assert boxes(truth, truth, new) == [Box(7, 7, 3, 3)]


def test_real_runs_leave_pictures_of_what_they_predict(trained):
    text = trained.read_text()

    assert "Chosen without a look at any prediction: of 6 validation images" in text
    urls = re.findall(r'href="data:image/(png|jpeg);base64,([^"]+)"', text)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for _, data in urls]
    assert [image.format for image in images] == ["JPEG", "PNG", "PNG", "PNG"] * 3
    assert {image.size for image in images} == {(96, 72)}
    words = re.findall(r"Prediction of (UniMatch\*|IPixMatch) for \S+: mIoU ([\d.]+)", text)
    assert [label for label, _ in words] == ["UniMatch*", "IPixMatch"] * 3
    masks = [np.asarray(image) for image in images if image.format == "PNG"]
    scores = [
        f"{image_miou_percent(truth, predicted):.1f}"
        for truth, *both in zip(*[iter(masks)] * 3, strict=True)
        for predicted in both
    ]
    assert [score for _, score in words] == scores


def test_the_pictures_lie_beside_the_page_and_are_the_same_each_time(trained):
    root = LocalRoot(trained.parents[1])
    first = trained.with_name("grid-two.png").read_bytes()

    png, page = report(make_plan(str(trained.parents[2] / "grid.yaml"), root))

    assert (png, page) == (trained.with_name("grid-two.png"), trained)
    assert png.read_bytes() == first
    with Image.open(png) as image:
        assert image.width > image.height > 3 * 72


def test_pictures_without_checkpoints_say_why(drawn):
    assert "no two runs to compare have left their best checkpoints here" in drawn.read_text()


def test_pictures_of_other_images_than_the_runs_read_are_left_out(trained, tmp_path):
    root = LocalRoot(tmp_path)
    plan = make_plan(str(trained.parents[2] / "grid.yaml"), LocalRoot(trained.parents[1]))
    filled = gather(plan).tables[0]
    runs = compared_runs(filled, plan.root)
    assert runs is not None
    for old in ({"data_fingerprint": "0" * 64}, {"split_checksum": "0" * 64}):
        drifted = replace(runs, base=replace(runs.base, **old))

        with pytest.raises(ValueError, match=r"read other images or lists .*rerun=drifted"):
            picture_grid(drifted, root)


def test_a_checkpoint_that_is_not_what_its_manifest_says_draws_no_picture(trained, tmp_path):
    root = tmp_path / "out"
    shutil.copytree(trained.parents[1], root)
    for path in root.glob("runs/*/checkpoints/best.pt"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")

    (page,) = report(make_plan(str(trained.parents[2] / "grid.yaml"), LocalRoot(root)))

    text = page.read_text()
    assert "is not what its manifest promises; the picture is left out" in text


def test_a_run_that_really_ran_scores_what_its_matrix_says(trained):
    root = trained.parents[1]
    for row in read_rows(LocalRoot(root)):
        for counts, miou in (
            (row.best_confusion, row.best_miou_percent),
            (row.last_confusion, row.last_miou_percent),
        ):
            matrix = np.array(counts)
            union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
            iou = np.divide(np.diag(matrix), union, out=np.zeros(len(union)), where=union > 0)
            assert miou == pytest.approx(100 * iou.mean(), rel=1e-12)
        kept = json.loads((root / "runs" / row.key / "confusion.json").read_text())
        assert kept["best"] == {
            "epoch": row.best_epoch,
            "counts": [list(line) for line in row.best_confusion],
        }
