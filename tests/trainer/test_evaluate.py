"""Mean IoU against a count in plain Python and against torchmetrics."""

import math
import multiprocessing
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torchmetrics.classification import MulticlassConfusionMatrix

from datasets.dataset import open_dataset
from datasets.errors import DataError
from tests.support.process_groups import in_fresh_process, run_ranks
from tests.support.tiny_config import tiny_config
from trainer.config.schema import Absent, EvaluationMode, TrainConfig
from trainer.distributed import Ranks
from trainer.evaluate import (
    ConfusionMatrix,
    Score,
    absent_classes,
    evaluate,
    iou_percent,
    mean_iou_percent,
    predict,
    slide,
    slide_inside,
    whole_by_eight,
)
from trainer.network.deeplab import normalise
from trainer.state import new_state


def drawn(seed: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randint(0, classes, (2, 9, 7), generator=generator)
    truth = torch.randint(0, classes - 1, (2, 9, 7), generator=generator)
    truth[torch.rand(2, 9, 7, generator=generator) < 0.2] = 255
    return predicted, truth.to(torch.uint8)


@given(seed=st.integers(0, 1000))
def test_iou_equals_a_count_of_sets_of_pixels(seed: int) -> None:
    predicted, truth = drawn(seed)
    matrix = ConfusionMatrix(5)
    matrix.update(predicted, truth)

    for cls, value in enumerate(matrix.compute().tolist()):
        pixels = [
            (p == cls, t == cls)
            for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True)
            if t != 255
        ]
        union = sum(p or t for p, t in pixels)
        expected = 100.0 * sum(p and t for p, t in pixels) / union if union else math.nan
        assert value == expected or (math.isnan(value) and math.isnan(expected))


@pytest.mark.parametrize("classes", [5, 127, 128, 255])
def test_counts_equal_those_of_torchmetrics(classes: int) -> None:
    predicted, truth = drawn(3, classes)
    ours = ConfusionMatrix(classes)
    theirs = MulticlassConfusionMatrix(classes, ignore_index=255)

    ours.update(predicted, truth)
    theirs.update(predicted, truth.to(torch.int64))

    assert (ours.counts == theirs.compute()).all()


def test_batches_add_up_to_the_whole() -> None:
    predicted, truth = drawn(4)
    whole, parts = ConfusionMatrix(5), ConfusionMatrix(5)
    whole.update(predicted, truth)

    for p, t in zip(predicted, truth, strict=True):
        parts.update(p, t)

    assert (whole.counts == parts.counts).all()


def test_the_mean_counts_an_absent_class_as_zero() -> None:
    counts = torch.tensor([[4, 0, 0], [0, 2, 0], [0, 0, 0]])

    per_class = iou_percent(counts)

    assert per_class[:2].tolist() == [100.0, 100.0]
    assert math.isnan(per_class[2].item())
    assert mean_iou_percent(counts) == 200.0 / 3


def test_the_mean_leaves_out_a_class_that_no_mask_shows_though_it_is_predicted() -> None:
    counts = torch.tensor([[3, 0, 1], [0, 2, 0], [0, 0, 0]])

    assert mean_iou_percent(counts) == 175.0 / 3
    assert mean_iou_percent(counts, Absent.skip) == 175.0 / 2
    assert absent_classes(((3, 0, 1), (0, 2, 0), (0, 0, 0))) == (2,)


def test_windows_overlap_by_a_third_and_shrink_at_the_border(drawn_root: Path) -> None:
    config = tiny_config(drawn_root, "evaluation.mode=slide")
    network = new_state(config, 6, Ranks(0, 1, torch.device("cpu"))).networks["student"].eval()
    images = torch.randint(0, 256, (1, 3, 50, 45), dtype=torch.uint8)
    expected = torch.zeros(1, 6, 50, 45)
    with torch.no_grad():
        x = normalise(images)
        for top in (0, 21, 42):  # int(32 * 2 / 3) = 21
            for left in (0, 21, 42):
                part = x[:, :, top : top + 32, left : left + 32]
                found = functional.softmax(network(part), 1)
                expected[:, :, top : top + 32, left : left + 32] += found

        assert torch.equal(predict(network, images, config), expected.argmax(1))


class Seeing(torch.nn.Module):
    """A network that remembers the sizes of what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append((len(x), *x.shape[-2:]))
        return x.mean(1, keepdim=True).expand(-1, 2, -1, -1)


@pytest.mark.parametrize(
    ("at_once", "rows"),
    [
        (1, [[(1, 801), (1, 801), (1, 801), (1, 446)]]),
        (4, [[(3, 801), (1, 446)]]),
        (2, [[(2, 801), (1, 801), (1, 446)]]),
    ],
)
def test_an_image_of_cityscapes_has_eight_windows(
    at_once: int, rows: list[list[tuple[int, int]]]
) -> None:
    network = Seeing()

    slide(network, torch.zeros(1, 3, 1024, 2048), 801, at_once=at_once)

    (columns,) = rows
    assert network.sizes == [(n, height, width) for height in (801, 490) for n, width in columns]


def test_windows_together_give_the_classes_of_windows_one_by_one(drawn_root: Path) -> None:
    config = tiny_config(drawn_root)
    network = new_state(config, 6, Ranks(0, 1, torch.device("cpu"))).networks["student"].eval()
    pixels = normalise(torch.randint(0, 256, (2, 3, 50, 130), dtype=torch.uint8))

    with torch.no_grad():
        alone, *together = (slide(network, pixels, 32, at_once=n) for n in (1, 2, 3, 99))

    for found in together:
        # Convolutions choose their kernels by batch, so the last digits may move; no class does.
        assert (found - alone).abs().max().item() <= 1e-5
        assert torch.equal(found.max(1).indices, alone.max(1).indices)


def test_an_image_that_cannot_be_read_stops_the_evaluation(tmp_path: Path) -> None:
    config, alone = tiny_config(tmp_path / "data"), Ranks(0, 1, torch.device("cpu"))
    dataset = open_dataset(config.data)
    (broken,) = (tmp_path / "data").rglob(f"{dataset.split.validation[-1]}.jpg")
    broken.write_bytes(b"no image")

    with pytest.raises(DataError, match=broken.name):
        evaluate(new_state(config, 6, alone).networks["student"], dataset, config, alone)


def evaluated(config: TrainConfig) -> Score:
    alone, dataset = Ranks(0, 1, torch.device("cpu")), open_dataset(config.data)
    return evaluate(new_state(config, 6, alone).networks["student"], dataset, config, alone)


def scores_by_way_of_reading(root: str, cache: str) -> list[Score]:
    """With 0, 1 and 2 workers, then from an empty and from a filled cache."""
    workers = [[f"run.loader_workers={number}"] for number in (0, 1, 2)]
    kept = ["run.cache=decoded", f"run.cache_folder={cache}"]
    ways = [*workers, [*kept, *workers[0]], [*kept, *workers[2]]]
    return [evaluated(tiny_config(Path(root), "data.drawn.num_val=5", *way)) for way in ways]


def test_neither_workers_nor_the_cache_change_a_score(tmp_path: Path) -> None:
    given = str(tmp_path / "data"), str(tmp_path / "cache")

    first, *others = in_fresh_process(scores_by_way_of_reading, *given)

    assert others == [first] * 4
    assert sum(map(sum, first.confusion)) > 0
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(files) == 2 * 5  # the image and the mask of each


def processes_after_an_error(root: str) -> tuple[str, int]:
    """What an evaluation with workers says of a broken image, and how many workers it leaves."""
    try:
        evaluated(tiny_config(Path(root), "run.loader_workers=2"))
    except DataError as error:
        return str(error), len(multiprocessing.active_children())
    return "", -1


def test_workers_end_with_the_evaluation_that_an_image_stops(tmp_path: Path) -> None:
    dataset = open_dataset(tiny_config(tmp_path / "data").data)
    (broken,) = (tmp_path / "data").rglob(f"{dataset.split.validation[1]}.jpg")
    broken.write_bytes(b"no image")

    message, left = in_fresh_process(processes_after_an_error, str(tmp_path / "data"))

    assert broken.name in message
    assert left == 0


def scores(root: str) -> Score:
    config = tiny_config(Path(root), "data.drawn.num_val=5")
    ranks = Ranks(
        torch.distributed.get_rank(), torch.distributed.get_world_size(), torch.device("cpu")
    )
    dataset = open_dataset(config.data)
    return evaluate(new_state(config, 6, ranks).networks["student"], dataset, config, ranks)


def windowed_by_hand(network: torch.nn.Module, image: torch.Tensor, crop: int) -> torch.Tensor:
    """The evaluation of the CPS code: pad in the middle, shift the last window back, add."""
    height, width = image.shape[-2:]
    tall, wide = max(height, crop), max(width, crop)
    top, left = (tall - height) // 2, (wide - width) // 2
    canvas = torch.zeros(1, 3, tall, wide)
    canvas[..., top : top + height, left : left + width] = image
    stride = math.ceil(crop * 2 / 3)
    total = torch.zeros(1, 4, tall, wide)
    for row in range(math.ceil((tall - crop) / stride) + 1):
        for column in range(math.ceil((wide - crop) / stride) + 1):
            y, x = min(row * stride + crop, tall) - crop, min(column * stride + crop, wide) - crop
            total[..., y : y + crop, x : x + crop] += network(
                canvas[..., y : y + crop, x : x + crop]
            )
    return total[..., top : top + height, left : left + width]


@pytest.mark.parametrize("size", [(20, 31), (9, 25), (7, 8), (12, 12)])
def test_windows_inside_the_image_are_those_of_the_code_of_cps(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network, image = torch.nn.Conv2d(3, 4, 3, padding=1), torch.randn(1, 3, *size)

    with torch.no_grad():
        one = slide_inside(network, image, 12, at_once=1)
        four = slide_inside(network, image, 12, at_once=4)
        expected = windowed_by_hand(network, image, 12)

    torch.testing.assert_close(one, expected)
    torch.testing.assert_close(four, expected)


def test_whole_images_may_be_brought_to_multiples_of_eight() -> None:
    seen: list[torch.Size] = []

    def network(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels.shape[-2:])
        return pixels

    image = torch.randn(1, 3, 13, 30)
    resized = whole_by_eight(network, image, EvaluationMode.whole_resized)  # type: ignore[arg-type]
    reflected = whole_by_eight(network, image, EvaluationMode.whole_reflected)  # type: ignore[arg-type]

    assert seen == [(16, 32), (16, 32)]
    assert torch.equal(reflected, image)
    grown = functional.interpolate(image, size=(16, 32), mode="bilinear", align_corners=True)
    back = functional.interpolate(grown, size=(13, 30), mode="bilinear", align_corners=True)
    torch.testing.assert_close(resized, back, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", EvaluationMode)
def test_every_mode_scores_each_pixel_of_an_image(drawn_root: Path, mode: EvaluationMode) -> None:
    config = tiny_config(drawn_root, f"evaluation.mode={mode.value}", "data.crop=33")
    network = new_state(config, 6, Ranks(0, 1, torch.device("cpu"))).networks["student"].eval()
    images = torch.randint(0, 255, (1, 3, 41, 50), dtype=torch.uint8)

    with torch.no_grad():
        assert predict(network, images, config).shape == (1, 41, 50)


def test_every_image_counts_once_whatever_the_number_of_ranks(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "data", "data.drawn.num_val=5")
    dataset, alone = open_dataset(config.data), Ranks(0, 1, torch.device("cpu"))
    one = evaluate(new_state(config, 6, alone).networks["student"], dataset, config, alone)

    for world_size in (2, 3):  # five images: no number divides them
        assert run_ranks(scores, world_size, str(tmp_path / "data")) == [one] * world_size


def test_the_network_returns_to_training(drawn_root: Path) -> None:
    config, alone = tiny_config(drawn_root), Ranks(0, 1, torch.device("cpu"))
    student = new_state(config, 6, alone).networks["student"]

    evaluate(student, open_dataset(config.data), config, alone)

    assert student.training


def score(miou_percent: float) -> Score:
    return Score(miou_percent, (miou_percent, None), ((3, 1), (0, 0)))


def test_only_the_best_and_the_last_epoch_keep_their_pixel_counts(drawn_root: Path) -> None:
    state = new_state(tiny_config(drawn_root), 6, Ranks(0, 1, torch.device("cpu")))

    for epoch, miou_percent in enumerate([10.0, 30.0, 20.0, 25.0], start=1):
        state.add_score(epoch, score(miou_percent))

    assert [bool(state.scores[epoch].confusion) for epoch in (1, 2, 3, 4)] == [
        False,
        True,
        False,
        True,
    ]
