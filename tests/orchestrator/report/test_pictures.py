"""The pictures: which images are shown, where their boxes lie, and what runs really predict."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestrator.planning.plan import make_plan
from orchestrator.report.page import report
from orchestrator.report.pictures import Box, accuracy, boxes, chosen, gain
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


def test_gain_counts_no_ignored_pixel():
    truth = np.array([[1, 1, 255, 2]], np.uint8)
    base, new = np.array([[1, 0, 0, 0]], np.uint8), np.array([[1, 1, 1, 0]], np.uint8)

    assert gain(truth, base, new) == pytest.approx(1 / 3)
    assert gain(truth, new, base) == pytest.approx(-1 / 3)
    assert accuracy(truth, new) == pytest.approx(2 / 3)


def test_half_of_the_images_gain_most_and_half_lose_most():
    assert chosen([0.1, -0.3, 0.5, 0.0, -0.1, 0.2], 4) == [2, 5, 1, 4]
    assert chosen([0.1, 0.2], 4) == [1, 0]
    assert chosen([0.0], 4) == []


def test_a_box_keeps_inside_the_image():
    truth = np.zeros((10, 10), np.uint8)
    new = truth.copy()
    new[9, 9] = 1

    assert boxes(truth, truth, new) == [Box(7, 7, 3, 3)]


def test_real_runs_leave_pictures_of_what_they_predict(trained):
    text = trained.read_text()

    assert "Chosen by rule, not by eye: of the first 6 validation images" in text
    urls = re.findall(r'href="data:image/(png|jpeg);base64,([^"]+)"', text)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for _, data in urls]
    assert len(images) % 4 == 0
    assert {image.size for image in images} == {(96, 72)}
    assert "Prediction of IPixMatch for" in text


def test_pictures_without_checkpoints_say_why(demo):
    assert "no two runs to compare have left their best checkpoints here" in demo.read_text()


def test_a_checkpoint_that_is_not_what_its_manifest_says_draws_no_picture(trained, tmp_path):
    root = tmp_path / "out"
    shutil.copytree(trained.parents[1], root)
    for path in root.glob("runs/*/checkpoints/best.pt"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")

    text = report(make_plan(str(trained.parents[2] / "grid.yaml"), LocalRoot(root))).read_text()

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
