"""The picture of the README: what the inter-pixel loss compares, drawn from a trained run.

    python -m benchmarks.study.loss_picture RUN_DIRECTORY TO.png

The teacher sees an image, the student a strong view of it. For one class the picture shows both
distributions of Eq. 4 over the confident pixels, and what each pixel adds to KL. The image is the
validation image that shows most classes; the class is the one with the largest loss there.
"""

import io
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from datasets.augment.host import draw_photometry, strong_image
from datasets.dataset import open_dataset
from datasets.files import atomic_write
from datasets.randomness import KeyedRandom, Stream
from orchestrator.report.pictures import most_classes
from orchestrator.report.plots import STYLE
from trainer.config.compose import from_json
from trainer.network.deeplab import DeepLabV3Plus, normalise


def main() -> None:
    """Draw it.

    Raises:
        OSError: the run directory has no best weights, or the picture cannot be written.
    """
    folder, target = (Path(argument) for argument in sys.argv[1:])
    config = from_json((folder / "config.json").read_text())
    dataset = open_dataset(config.data)
    names = dataset.split.validation
    truths = [np.array(dataset.tree.mask(name), dtype=np.uint8) for name in names]
    image = dataset.tree.image(names[most_classes(truths, 1)[0]])
    draws = KeyedRandom(config.seed, Stream.STRONG_1, 0)
    strong = strong_image(image, draw_photometry(draws, config.data.strong))
    network = DeepLabV3Plus(config.model, dataset.num_classes)
    packed = torch.load(folder / "checkpoints" / "best.pt", map_location="cpu", weights_only=True)
    network.load_state_dict(packed["weights"])
    network.eval()
    teacher, student = (_logits(network, view) for view in (image, strong))
    loss = config.loss
    confident = teacher.softmax(0).amax(0) > loss.threshold
    if confident.sum() < 2:
        sys.exit(f"In {folder} no pixel is surer than {loss.threshold}; train for longer.")
    p, q = (_distribution(logits, confident, loss.temperature) for logits in (teacher, student))
    terms = torch.where(confident, p * (p / q).log(), 0.0)
    label = int(terms.sum((1, 2)).argmax())
    name = dataset.spec.class_names[label]
    maps = (("teacher", p[label]), ("student", q[label]))
    figure = _figure(
        [
            ("unlabelled image,\nseen by the teacher", image),
            ("strong view of it,\nseen by the student", strong),
        ],
        confident,
        [(f"{who}: where is\n“{name}”?", values) for who, values in maps],
        terms[label],
    )
    with io.BytesIO() as out:
        figure.savefig(out, format="png", dpi=160, bbox_inches="tight", metadata={"Software": None})
        atomic_write(target, out.getvalue())
    print(target)


def _logits(network: DeepLabV3Plus, image: Image.Image) -> Tensor:
    """Logits of one image, (C, H, W)."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)[None]
    with torch.no_grad():
        return network(normalise(pixels))[0].float()


def _distribution(logits: Tensor, confident: Tensor, temperature: float) -> Tensor:
    """Eq. 4: each class over the confident pixels, (C, H, W), zero elsewhere."""
    scaled = (logits / temperature).masked_fill(~confident, -torch.inf)
    return scaled.flatten(1).softmax(1).view_as(logits)


def _figure(
    images: list[tuple[str, Image.Image]],
    confident: Tensor,
    maps: list[tuple[str, Tensor]],
    terms: Tensor,
) -> Figure:
    """Six pictures side by side, in the order in which the loss is computed."""
    with mpl.rc_context(
        STYLE | {"axes.titlesize": 8.0, "axes.spines.left": False, "axes.spines.bottom": False}
    ):
        figure = Figure(figsize=(10.0, 1.85), layout="constrained")
        axes = figure.subplots(1, 6)
        for axis, (title, image) in zip(axes, images, strict=False):
            axis.imshow(image)
            axis.set_title(title)
        axes[2].imshow(confident, cmap="Greys_r", vmin=0, vmax=1)
        axes[2].set_title("pixels of which\nthe teacher is sure")
        highest = max(float(values.max()) for _, values in maps)
        for axis, (title, values) in zip(axes[3:], maps, strict=False):
            axis.imshow(torch.where(confident, values, torch.nan), vmin=0, vmax=highest)
            axis.set_title(title)
        reach = float(terms.abs().max())
        axes[5].imshow(
            torch.where(confident, terms, torch.nan), cmap="RdBu_r", vmin=-reach, vmax=reach
        )
        axes[5].set_title("what each pixel\nadds to the loss")
        for axis in axes:
            axis.set_facecolor("#d5dae0")  # pixels that do not count
            axis.set(xticks=[], yticks=[])
    return figure


if __name__ == "__main__":
    main()
