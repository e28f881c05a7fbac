"""What the pseudo-labels of a trained run are worth: how many are sure, how many of them are right.

    python -m benchmarks.study.pseudo_labels RUN_DIRECTORY ...

The best weights label the unlabelled images, whole and without augmentation. Their masks, which no
training saw, say which labels are right: so it needs data whose unlabelled images have masks.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.dataset import Dataset, open_dataset
from trainer.config.compose import from_json
from trainer.network.deeplab import DeepLabV3Plus, normalise

IMAGES = 120  # the first of the list


def main() -> None:
    """Print a line for each run and each class."""
    torch.set_num_threads(1)
    for folder in map(Path, sys.argv[1:]):
        config = from_json((folder / "config.json").read_text())
        dataset = open_dataset(config.data)
        network = DeepLabV3Plus(config.model, dataset.num_classes)
        best = folder / "checkpoints" / "best.pt"
        packed = torch.load(best, map_location="cpu", weights_only=True)
        network.load_state_dict(packed["weights"])
        network.eval()
        threshold = config.method.confidence
        truth, sure, right = _counts(network, dataset, threshold)
        print(
            f"{folder.name}: {_share(sure, truth)} of the pixels are surer than {threshold},",
            end=" ",
        )
        print(f"{_share(right, sure)} of them are right")
        for label, name in enumerate(dataset.spec.class_names):
            of, found, hits = truth[label], sure[label], right[label]
            print(f"  {name:20} {_share(of, truth):>5} of the pixels,", end=" ")
            print(f"{_share(hits, of):>5} of them with a sure right label,", end=" ")
            print(f"{_share(hits, found):>5} of its sure labels right")


def _counts(
    network: DeepLabV3Plus, dataset: Dataset, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of each class, its sure labels, and the right ones among them, (C,) each."""
    num_classes = dataset.num_classes
    truth, sure, right = np.zeros((3, num_classes), np.int64)
    for name in dataset.split.unlabelled[:IMAGES]:
        pixels = torch.from_numpy(np.array(dataset.tree.image(name), dtype=np.uint8))
        with torch.no_grad():
            logits = network(normalise(pixels.permute(2, 0, 1)[None]))[0].float()
        top, labels = (values.numpy() for values in logits.softmax(0).max(0))
        mask = np.array(dataset.tree.mask(name), dtype=np.uint8)
        counted = mask < num_classes
        chosen = counted & (top >= threshold)
        for counts, where, of in (
            (truth, counted, mask),
            (sure, chosen, labels),
            (right, chosen & (labels == mask), labels),
        ):
            counts += np.bincount(of[where], minlength=num_classes)
    return truth, sure, right


def _share(part: NDArray[np.int64] | np.int64, whole: NDArray[np.int64] | np.int64) -> str:
    """A part in percent."""
    total = np.sum(whole)
    return f"{100 * np.sum(part) / total:.0f} %" if total else "-"


if __name__ == "__main__":
    main()
