"""Evaluation, part by part: `python -m benchmarks.evaluation [key=value ...]`.

Per image: the confusion matrix beside UniMatch's numpy histograms and torchmetrics; the class of a
pixel by `max` beside softmax and argmax. Sliding windows one by one and together, and in how many
pixels the two name another class. Reading files by Pillow, by ours and from the decoded cache;
reading ahead beside reading in turn (wall time).
Settings: rounds, device, window, model, sizes (VOC,Cityscapes), images (read ahead or in turn).
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from benchmarks.gpu.pipeline import files_of
from benchmarks.input.files import CITYSCAPES, VOC, Kind
from benchmarks.table import Column, in_turn, print_table, settings
from datasets.dataset import open_dataset
from datasets.loading.loader import validation_images
from trainer.config.compose import compose
from trainer.config.schema import RunConfig
from trainer.distributed import Ranks, init_process_group
from trainer.evaluate import ConfusionMatrix, evaluate, predict, slide
from trainer.network.deeplab import normalise
from trainer.state import new_state

SIZES = {"VOC": (21, 375, 500), "Cityscapes": (19, 1024, 2048)}  # classes, height, width
DEFAULTS = {
    "rounds": "5",
    "device": "cpu",
    "window": "321",
    "model": "resnet50",
    "sizes": "VOC,Cityscapes",
    "images": "12",
}


def main(words: list[str]) -> None:
    """Print the tables."""
    given = settings(words, DEFAULTS)
    torch.set_num_threads(1)
    rounds, device = int(given["rounds"]), given["device"]
    sizes = given["sizes"].split(",")
    for name in sizes:
        classes, height, width = SIZES[name]
        logits, truth = _image(classes, height, width, device)
        predicted = logits.max(1).indices[0]
        calls = _metrics(predicted, truth, classes)
        print_table(f"{name}: confusion matrix of one image", in_turn(calls, rounds=rounds))
        ways: dict[str, Callable[[], object]] = {
            "softmax(1).argmax(1)": lambda x=logits: x.softmax(1).argmax(1),
            "argmax(1)": lambda x=logits: x.argmax(1),
            "max(1)": lambda x=logits: x.max(1).indices,
        }
        print_table(f"{name}: classes of one image", in_turn(ways, rounds=rounds, device=device))
    ranks = init_process_group(RunConfig(device=device))
    for name in sizes:
        _files({"VOC": VOC, "Cityscapes": CITYSCAPES}[name], rounds)
    _windows(given, ranks)
    _reading(given, ranks)


def histograms(predicted: "np.ndarray", truth: "np.ndarray", classes: int) -> list["np.ndarray"]:
    """Intersection, union and target by three numpy histograms, as UniMatch's code counts."""
    predicted = predicted.reshape(-1).copy()
    truth = truth.reshape(-1)
    predicted[truth == 255] = 255
    hits = predicted[predicted == truth]
    edges = np.arange(classes + 1)
    found = [np.histogram(x, bins=edges)[0] for x in (hits, predicted, truth)]
    return [found[0], found[1] + found[2] - found[0], found[2]]


def _image(classes: int, height: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, classes, height, width, generator=generator)
    truth = torch.randint(0, classes, (height, width), dtype=torch.uint8, generator=generator)
    truth[:8] = 255
    return logits.to(device), truth.to(device)


def _metrics(predicted: Tensor, truth: Tensor, classes: int) -> dict[str, Callable[[], object]]:
    matrix = ConfusionMatrix(classes).to(predicted.device)
    wide = truth.long()

    def torchmetrics() -> Tensor:
        return multiclass_confusion_matrix(
            predicted, wide, classes, ignore_index=255, validate_args=False
        )

    def numpy() -> object:
        return histograms(predicted.cpu().numpy(), truth.cpu().numpy(), classes)

    def ours() -> None:
        matrix.update(predicted, truth)

    return {"UniMatch, numpy histograms": numpy, "torchmetrics": torchmetrics, "ours": ours}


def _files(kind: Kind, rounds: int) -> None:
    """Reading the images and masks of a validation set, CPU time of all of them."""
    with TemporaryDirectory() as folder:
        dataset = files_of(kind, Path(folder) / "files")
        names, tree = dataset.split.validation, dataset.tree

        def pillow() -> None:
            for name in names:
                np.array(tree.image(name))
                np.array(tree.mask(name))

        def ours(cache: Path | None = None) -> None:
            for _ in validation_images(dataset, names, cache=cache):
                pass

        calls: dict[str, Callable[[], object]] = {
            "Pillow": pillow,
            "ours": ours,
            "ours, decoded cache": lambda: ours(Path(folder) / "cache"),
        }
        title = f"{kind.name}: reading {len(names)} images and masks"
        print_table(title, in_turn(calls, rounds=rounds))


def _windows(given: dict[str, str], ranks: Ranks) -> None:
    """One row of windows of an image two and a half windows wide."""
    window = int(given["window"])
    config = compose([f"model={given['model']}", "model.init=random"])
    network = new_state(config, 19, ranks).networks["student"].eval()
    generator = torch.Generator().manual_seed(0)
    size = (1, 3, window, 5 * window // 2)
    pixels = normalise(torch.randint(0, 256, size, dtype=torch.uint8, generator=generator))
    pixels = pixels.to(ranks.device)
    found: dict[int, Tensor] = {}

    @torch.no_grad()
    def look(at_once: int) -> None:
        found[at_once] = slide(network, pixels, window, at_once=at_once)

    calls = {f"{n} at once": lambda n=n: look(n) for n in (1, 2, 4)}
    columns = in_turn(calls, rounds=2, device=ranks.device.type)
    print_table(f"Windows of {window} of one row, {given['model']}", columns)
    for at_once in (2, 4):
        other = (found[at_once].max(1).indices != found[1].max(1).indices).sum().item()
        gap = (found[at_once] - found[1]).abs().max().item()
        print(
            f"{at_once} at once: {other} pixels of another class, sums differ by at most {gap:.1e}"
        )


def _reading(given: dict[str, str], ranks: Ranks) -> None:
    """A whole evaluation of drawn photographs, reading ahead and in turn; wall time."""
    columns = Column("in turn"), Column("read ahead")
    with TemporaryDirectory() as folder:
        config = compose(
            [
                "model=resnet14_w16",
                f"data.root={Path(folder) / 'data'}",
                "data.drawn.width=500",
                "data.drawn.height=375",
                "data.drawn.num_train=10",
                f"data.drawn.num_val={given['images']}",
                "data.split=1of2",
            ]
        )
        dataset = open_dataset(config.data)
        network = new_state(config, dataset.num_classes, ranks).networks["student"]

        def in_turn_evaluation() -> None:
            network.eval()
            matrix = ConfusionMatrix(dataset.num_classes).to(ranks.device)
            for name in dataset.split.validation:
                image = torch.from_numpy(np.array(dataset.tree.image(name))).permute(2, 0, 1)[None]
                truth = torch.from_numpy(np.array(dataset.tree.mask(name))).to(ranks.device)
                with torch.no_grad():
                    matrix.update(predict(network, image.to(ranks.device), config)[0], truth)

        for number in range(int(given["rounds"]) + 1):
            calls = in_turn_evaluation, lambda: evaluate(network, dataset, config, ranks)
            for column, call in zip(columns, calls, strict=True):
                start = time.perf_counter()
                call()
                if number:
                    column.values.append(time.perf_counter() - start)
    print_table(f"Evaluation of {given['images']} drawn images of 500 x 375, wall", columns)


if __name__ == "__main__":
    main(sys.argv[1:])
