"""Images of the validation set: input, truth, and the predictions of two runs.

Runs are taken from their best checkpoints; torch is loaded only when there are two to compare.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.dataset import Dataset, open_dataset
from datasets.files import file_sha256
from datasets.progress import Say
from datasets.spec import IGNORED, DatasetSpec
from datasets.splits.lists import seeded_order
from orchestrator.results.store import Row
from orchestrator.storage.paths import RunPaths
from orchestrator.storage.root import Root
from orchestrator.tables.filled import FilledTable
from trainer.checkpoint_manifest import CHECKPOINTS, read_manifest
from trainer.config.compose import from_json

RULE = (
    "Chosen without a look at any prediction: of {candidates} validation images in an order drawn "
    "once, the {shown} that show most classes, each on at least a hundredth of the image. "
    "Predictions are of the best weights of the first seed; the mIoU of an image is over the "
    "classes that it or its prediction shows. Boxes: the windows of a third of each side with "
    "the most pixels where exactly one of the two is right; at most two, apart from each other, "
    "the second only with half as many such pixels."
)

Mask = NDArray[np.uint8]  # class indices, (H, W)


@dataclass(frozen=True)
class Box:
    """A window of an image, pixels."""

    left: int
    top: int
    width: int
    height: int


def most_classes(truths: Sequence[Mask], count: int) -> list[int]:
    """Indices of the masks that show most classes, earlier ones first where they show equally many.

    A class counts from a hundredth of the mask on, so that no single pixel decides.
    """
    counts = [np.bincount(truth.ravel(), minlength=256)[:IGNORED] for truth in truths]
    shown = [int((100 * c >= truth.size).sum()) for c, truth in zip(counts, truths, strict=True)]
    return sorted(range(len(truths)), key=lambda index: (-shown[index], index))[:count]


def image_miou_percent(truth: Mask, predicted: Mask) -> float:
    """Mean IoU over the classes that truth or prediction shows, of the counted pixels."""
    counted = truth != IGNORED
    truth, predicted = truth[counted], predicted[counted]
    labels = np.union1d(truth, predicted)
    overlaps = [((truth == i) & (predicted == i)).sum() for i in labels]
    unions = [((truth == i) | (predicted == i)).sum() for i in labels]
    return 100 * float(np.mean(np.divide(overlaps, unions))) if len(labels) else 0.0


def boxes(truth: Mask, base: Mask, new: Mask) -> list[Box]:
    """Where the two differ most, see `RULE`."""
    differs = ((base == truth) != (new == truth)) & (truth != IGNORED)
    height, width = differs.shape
    size = (max(1, round(height / 3)), max(1, round(width / 3)))
    windows: list[Box] = []
    left = differs.copy()
    most = 0
    for _ in range(2):
        box, count = _fullest(left, size, windows)
        if box is None or count == 0 or count < most / 2:
            break
        windows.append(box)
        most = max(most, count)
    return windows


def _fullest(
    marked: NDArray[np.bool_], size: tuple[int, int], taken: Sequence[Box]
) -> tuple[Box | None, int]:
    """The window with the most marked pixels that touches none of the taken ones."""
    height, width = size
    # A summed-area table gives the count of every window from four of its entries.
    sums = np.pad(marked.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    counts = (
        sums[height:, width:]
        - sums[:-height, width:]
        - sums[height:, :-width]
        + sums[:-height, :-width]
    )
    for box in taken:
        top, left = max(0, box.top - height + 1), max(0, box.left - width + 1)
        counts[top : box.top + box.height, left : box.left + box.width] = -1
    top, left = divmod(int(counts.argmax()), counts.shape[1])
    count = int(counts[top, left])
    return (None, 0) if count < 0 else (Box(left, top, width, height), count)


CANDIDATES = 60  # masks read to find those that show most classes
SHOWN = 3
_ORDER_SEED = 0  # lists are often sorted by place or film; neighbours would look alike

_WIDTH = 320  # pixels a picture has at most in the page
_IGNORED_COLOUR = (224, 224, 224)


@dataclass(frozen=True)
class ComparedRuns:
    """Two runs to compare, and what the table calls them."""

    table: str
    column: str
    new_label: str
    base_label: str
    new: Row
    base: Row


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        label: what it is: Input, Truth, or the method of a prediction.
        text: text alternative.
        image: RGB, or a class map in the dataset's own colours.
        miou_percent: of a prediction, see `image_miou_percent`.
    """

    label: str
    text: str
    image: Image.Image
    boxes: tuple[Box, ...] = ()
    miou_percent: float | None = None

    @property
    def url(self) -> str:
        """The picture as a data: URL, made smaller where the page has no room for more."""
        image, kind = self.image, "JPEG" if self.image.mode == "RGB" else "PNG"
        if image.width > _WIDTH:
            height = round(image.height * _WIDTH / image.width)
            way = Image.Resampling.NEAREST if kind == "PNG" else Image.Resampling.LANCZOS
            image = image.resize((_WIDTH, height), way)
        out = io.BytesIO()
        image.save(out, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
        return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


@dataclass(frozen=True)
class PictureGrid:
    """Pictures of the images that were chosen, and how.

    Attributes:
        rule: how images and boxes were chosen.
        rows: one for each image: input, truth, baseline, new.
        colours: name and colour of every class that is to be seen.
    """

    runs: ComparedRuns
    rule: str
    rows: tuple[tuple[Picture, ...], ...]
    colours: tuple[tuple[str, tuple[int, int, int]], ...]


def compared_runs(filled: FilledTable, root: Root) -> ComparedRuns | None:
    """The first column of the first difference row of which both runs left a best checkpoint."""
    heads = [" ".join(parts) for parts in zip(*filled.table.heads(), strict=True)]
    for block in filled.blocks:
        rows = {row.row.label: row for row in block.rows}
        for minus in (row.row.minus for row in block.rows if row.row.minus):
            for head, new, base in zip(
                heads, rows[minus[0]].entries, rows[minus[1]].entries, strict=True
            ):
                others = {row.seed: row for row in base.results}
                for row in new.results:
                    other = others.get(row.seed)
                    if other and _has_best(root, row) and _has_best(root, other):
                        return ComparedRuns(filled.table.name, head, *minus, row, other)
    return None


def picture_grid(runs: ComparedRuns, root: Root) -> PictureGrid:
    """Predict, choose and draw.

    Raises:
        ValueError: the data of the runs is not here, or is not what they read.
    """
    dataset = open_dataset(from_json(runs.new.config_json).data)
    for row in (runs.base, runs.new):
        _check_is_its_data(row, dataset)
    names = seeded_order(dataset.split.validation, _ORDER_SEED)[:CANDIDATES]
    truths = [np.array(dataset.tree.mask(name), dtype=np.uint8) for name in names]
    indices = most_classes(truths, SHOWN)
    chosen = [names[index] for index in indices]
    base, new = (_predictions(row, root, dataset, chosen) for row in (runs.base, runs.new))
    triples = list(zip((truths[index] for index in indices), base, new, strict=True))
    seen = {int(label) for masks in triples for mask in masks for label in np.unique(mask)}
    spec = dataset.spec
    return PictureGrid(
        runs=runs,
        rule=RULE.format(candidates=len(names), shown=len(chosen)),
        rows=tuple(
            _pictures(dataset, name, runs, masks)
            for name, masks in zip(chosen, triples, strict=True)
        ),
        colours=tuple((spec.class_names[i], spec.palette[i]) for i in sorted(seen - {IGNORED})),
    )


def _check_is_its_data(row: Row, dataset: Dataset) -> None:
    """Raise if a run read other images or lists: its numbers would stand beside other pictures."""
    read = (row.data_fingerprint or "", row.split_checksum or "")
    changes = dataset.identity.changes_since(*read)
    if changes:
        raise ValueError(
            f"the pictures are left out, since {row.key} read other images or lists than are here "
            f"today ({'; '.join(changes)}). Launch with rerun=drifted to renew its numbers."
        )


def _has_best(root: Root, row: Row) -> bool:
    folder = _folder(row, root)
    manifest = read_manifest(folder / "best.json")
    # A run of other data may lie there by now, with the same configuration.
    attempt = RunPaths(folder.parent).newest_attempt()
    return (
        manifest is not None
        and manifest.fingerprint == row.fingerprint
        and attempt == row.attempt
        and (folder / "best.pt").is_file()
    )


def _folder(row: Row, root: Root) -> Path:
    """Checkpoints of a run, the best weights among them."""
    return root.local_copy(row.key, also=(f"{CHECKPOINTS}/best.pt",)).folder / CHECKPOINTS


def _predictions(row: Row, root: Root, dataset: Dataset, names: Sequence[str]) -> list[Mask]:
    """Class maps of a run's best weights, (H, W) each."""
    import torch

    from trainer.evaluate import predict
    from trainer.network.deeplab import DeepLabV3Plus

    config = from_json(row.config_json)
    path = _folder(row, root) / "best.pt"
    manifest = read_manifest(path.with_suffix(".json"))
    if manifest is None or file_sha256(path) != manifest.sha256:
        raise ValueError(f"{path} is not what its manifest promises; the picture is left out.")
    packed: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    network = DeepLabV3Plus(config.model, dataset.num_classes)
    network.load_state_dict(packed["weights"])
    network.eval()
    masks = []
    with torch.no_grad():
        for name in names:
            pixels = np.array(dataset.tree.image(name), dtype=np.uint8)
            image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
            masks.append(predict(network, image, config)[0].numpy().astype(np.uint8))
    return masks


def _pictures(
    dataset: Dataset, name: str, runs: ComparedRuns, masks: tuple[Mask, Mask, Mask]
) -> tuple[Picture, ...]:
    """The four pictures of one image."""
    truth, base, new = masks
    there = tuple(boxes(truth, base, new))
    pictures = [
        Picture("Input", f"Image {name}", dataset.tree.image(name)),
        Picture("Truth", f"Annotation of {name}", _coloured(truth, dataset.spec), there),
    ]
    for label, mask in ((runs.base_label, base), (runs.new_label, new)):
        miou = image_miou_percent(truth, mask)
        text = f"Prediction of {label} for {name}: mIoU {miou:.1f}"
        pictures.append(Picture(label, text, _coloured(mask, dataset.spec), there, miou))
    return tuple(pictures)


def _coloured(mask: Mask, spec: DatasetSpec) -> Image.Image:
    """A class map in the dataset's own colours."""
    palette = np.full((256, 3), _IGNORED_COLOUR, dtype=np.uint8)
    palette[: len(spec.palette)] = spec.palette
    image = Image.fromarray(mask, mode="P")
    image.putpalette(palette.tobytes())
    return image


def picture_grids(
    tables: tuple[FilledTable, ...], root: Root, say: Say
) -> Iterator[tuple[str, PictureGrid | str]]:
    """Name and pictures of each table that compares two methods, or why there are none."""
    for filled in tables:
        if not any(row.row.minus for row in filled.rows):
            continue
        runs = compared_runs(filled, root)
        if runs is None:
            yield filled.table.name, "no two runs to compare have left their best checkpoints here"
            continue
        say(f"pictures of {filled.table.name}")
        try:
            yield filled.table.name, picture_grid(runs, root)
        except (ValueError, OSError) as error:
            yield filled.table.name, str(error)
