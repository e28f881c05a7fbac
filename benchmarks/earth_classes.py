"""Which land cover can be told apart in the picture: the figures behind the classes of earth.

A normal distribution of colour and texture for each class (quadratic discriminant analysis) says
how far pixels alone lead. Of the training blocks three fifths of the globe's are fitted and one is
scored, in turn; validation blocks are never looked at.

    python -m benchmarks.earth_classes [DIR of the wheels]
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from datasets.known.earth import NUM_COVERS, SOURCES, TILE, WHITE
from datasets.location import home
from datasets.prepare.earth import read_globe, tiles_of
from datasets.storage.wheels import bring_wheels

SAMPLES = 30000  # pixels of each fifth
FOREST, TOWN = (1, 2, 3, 4, 5), (13, 14)
MERGES: dict[str, dict[str, Sequence[int]]] = {
    "woody savanna apart": {"forest": FOREST, "woody savanna": (8,), "savanna": (9,)},
    "woody savanna is savanna": {"forest": FOREST, "savanna": (8, 9)},
    "woody savanna is forest": {"forest": (*FOREST, 8), "savanna": (9,)},
    "both are forest": {"forest": (*FOREST, 8, 9)},
}
OTHERS = {"water": (0,), "shrub": (6, 7), "grass": (10,), "crop": (12, *TOWN), "barren": (16,)}


def main() -> None:
    """Print the table."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else home() / "data" / "downloads"
    bring_wheels((SOURCES.picture, SOURCES.cover), folder, print)
    globe = read_globe(folder, SOURCES)
    parts = np.zeros(globe.cover.shape, np.uint8)  # 0 outside training tiles
    for tile, _, _ in tiles_of(globe):
        parts[tile.top : tile.top + TILE, tile.left : tile.left + TILE] = tile.part
    white = (parts > 0) & (globe.picture.min(axis=2) >= WHITE)
    print(f"of the white pixels {(globe.cover[white] == 15).mean():.0%} are permanent snow")
    for name in ("wetland", "permanent snow"):
        share = (globe.cover[parts > 0] == {"wetland": 11, "permanent snow": 15}[name]).mean()
        print(f"{name}: {share:.1%} of the pixels")
    draws = np.random.default_rng(0)
    chosen = {
        part: draws.choice(np.flatnonzero(parts == part), SAMPLES, replace=False)
        for part in (1, 2, 3, 4)
    }
    features = _features(globe.picture)
    values = {part: features[pixels] for part, pixels in chosen.items()}
    covers = {part: globe.cover.ravel()[pixels] for part, pixels in chosen.items()}
    for title, classes in MERGES.items():
        named = OTHERS | classes
        table = np.full(NUM_COVERS, -1)
        for label, covered in enumerate(named.values()):
            table[list(covered)] = label
        iou = _iou(values, {part: table[cover] for part, cover in covers.items()}, len(named))
        each = ", ".join(f"{name} {of:.0f}" for name, of in zip(named, iou, strict=True))
        print(f"{title}: mIoU {iou.mean():.1f} ({each})")


def _features(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logarithms of colour, of mean colour and of deviation in 9 and 33 pixels, (pixels, 11)."""
    colour = picture.astype(np.float32)
    grey, parts = colour.mean(axis=2), [colour]
    for size in (9, 33):
        parts.append(uniform_filter(colour, (size, size, 0)))
        variance = uniform_filter(grey**2, size) - uniform_filter(grey, size) ** 2
        parts.append(np.sqrt(np.maximum(variance, 0))[..., None])
    joined: NDArray[np.float32] = np.log1p(np.concatenate(parts, axis=2))
    return joined.reshape(-1, joined.shape[2])


def _iou(
    values: Mapping[int, NDArray[np.float32]], labels: Mapping[int, NDArray[np.int64]], count: int
) -> NDArray[np.float64]:
    """IoU of each class in percent, every part scored by what the others say."""
    confusion = np.zeros((count, count))
    for held_out in values:
        others = [part for part in values if part != held_out]
        known = np.concatenate([values[part] for part in others])
        truth = np.concatenate([labels[part] for part in others])
        scores = [_score(known[truth == label], values[held_out]) for label in range(count)]
        shares = np.log([(truth == label).mean() for label in range(count)])
        guess = np.argmax(np.array(scores) + shares[:, None], axis=0)
        counted = labels[held_out] >= 0
        np.add.at(confusion, (labels[held_out][counted], guess[counted]), 1)
    hits = np.diag(confusion)
    iou: NDArray[np.float64] = 100 * hits / (confusion.sum(0) + confusion.sum(1) - hits)
    return iou


def _score(known: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logarithm of the density of a normal distribution, up to a constant."""
    spread = np.cov(known.T) + 1e-3 * np.eye(known.shape[1])
    root = np.linalg.cholesky(spread)
    distance = np.linalg.solve(root, (values - known.mean(axis=0)).T)
    density: NDArray[np.float64] = -0.5 * (distance**2).sum(axis=0) - np.log(np.diag(root)).sum()
    return density


if __name__ == "__main__":
    main()
