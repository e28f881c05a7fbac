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
from datasets.spec import IGNORED, DatasetSpec
from orchestrator.results.store import Row
from orchestrator.storage.paths import RunPaths
from orchestrator.storage.root import Root
from orchestrator.tables.filled import FilledTable
from trainer.checkpoint_manifest import CHECKPOINTS, read_manifest
from trainer.config.compose import from_json

RULE = (
    "Chosen by rule, not by eye: of the first {candidates} validation images, half of those shown "
    "gain most correct pixels and half lose most. Boxes: the windows of a third of each side with "
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


def gain(truth: Mask, base: Mask, new: Mask) -> float:
    """Part of the counted pixels that `new` gets right and `base` wrong, less the reverse."""
    counted = truth != IGNORED
    total = int(counted.sum())
    right = ((new == truth) & counted).sum() - ((base == truth) & counted).sum()
    return float(right) / total if total else 0.0


def accuracy(truth: Mask, predicted: Mask) -> float:
    """Part of the counted pixels that is right."""
    counted = truth != IGNORED
    return float((predicted == truth)[counted].mean()) if counted.any() else 0.0


def chosen(gains: Sequence[float], count: int) -> list[int]:
    """Indices of the images to show: those that gain most, then those that lose most."""
    order = sorted(range(len(gains)), key=lambda index: (-gains[index], index))
    winners = [index for index in order if gains[index] > 0][: (count + 1) // 2]
    losers = [index for index in reversed(order) if gains[index] < 0][: count // 2]
    return winners + losers


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


CANDIDATES = 60  # images looked at; a CPU predicts them in a minute or two
SHOWN = 4

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
    """One picture with its label, text alternative and boxes; `data` is a data: URL."""

    label: str
    text: str
    data: str
    size: tuple[int, int]
    boxes: tuple[Box, ...]


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
        ValueError: the data of the runs is not here.
    """
    config = from_json(runs.new.config_json)
    dataset = open_dataset(config.data)
    names = dataset.split.validation[:CANDIDATES]
    truths = [np.array(dataset.tree.mask(name), dtype=np.uint8) for name in names]
    new, base = (_predictions(row, root, dataset, names) for row in (runs.new, runs.base))
    gains = [gain(*masks) for masks in zip(truths, base, new, strict=True)]
    rows, seen = [], set()
    for index in chosen(gains, SHOWN):
        masks = (truths[index], base[index], new[index])
        rows.append(_pictures(dataset, names[index], runs, masks))
        seen |= {int(label) for mask in masks for label in np.unique(mask)}
    spec = dataset.spec
    colours = [(spec.class_names[i], spec.palette[i]) for i in sorted(seen - {IGNORED})]
    rule = RULE.format(candidates=len(names))
    return PictureGrid(runs, rule, tuple(rows), tuple(colours))


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


def _predictions(row: Row, root: Root, dataset: Dataset, names: tuple[str, ...]) -> list[Mask]:
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
    image = dataset.tree.image(name)
    there = tuple(boxes(truth, base, new))
    words = {
        label: f"{100 * accuracy(truth, mask):.1f} % of its pixels are right"
        for label, mask in ((runs.base_label, base), (runs.new_label, new))
    }
    return (
        Picture("Input", f"Image {name}", _url(image, "JPEG"), image.size, ()),
        Picture(
            "Truth", f"Annotation of {name}", _coloured(truth, dataset.spec), image.size, there
        ),
        *(
            Picture(
                label,
                f"Prediction of {label} for {name}: {words[label]}",
                _coloured(mask, dataset.spec),
                image.size,
                there,
            )
            for label, mask in ((runs.base_label, base), (runs.new_label, new))
        ),
    )


def _coloured(mask: Mask, spec: DatasetSpec) -> str:
    """A class map in the dataset's own colours."""
    palette = np.full((256, 3), _IGNORED_COLOUR, dtype=np.uint8)
    palette[: len(spec.palette)] = spec.palette
    image = Image.fromarray(mask, mode="P")
    image.putpalette(palette.tobytes())
    return _url(image, "PNG")


def _url(image: Image.Image, kind: str) -> str:
    """The picture as a data: URL, made smaller where the page has no room for more."""
    if image.width > _WIDTH:
        height = round(image.height * _WIDTH / image.width)
        way = Image.Resampling.NEAREST if kind == "PNG" else Image.Resampling.LANCZOS
        image = image.resize((_WIDTH, height), way)
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def picture_grids(
    tables: tuple[FilledTable, ...], root: Root
) -> Iterator[tuple[str, PictureGrid | str]]:
    """Name and pictures of each table that compares two methods, or why there are none."""
    for filled in tables:
        if not any(row.row.minus for row in filled.rows):
            continue
        runs = compared_runs(filled, root)
        if runs is None:
            yield filled.table.name, "no two runs to compare have left their best checkpoints here"
            continue
        try:
            yield filled.table.name, picture_grid(runs, root)
        except (ValueError, OSError) as error:
            yield filled.table.name, str(error)
