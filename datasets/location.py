"""Which dataset a configuration means, and where its files lie. Needs neither torch nor Pillow."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from datasets.catalog import CATALOG, MAX_DRAWN_CLASSES, SYNTHETIC_VERSION, DatasetSpec, voc_colour
from datasets.config import DataConfig, SyntheticConfig
from datasets.folder_description import read_description
from datasets.paths import home
from datasets.storage.open import is_url


def spec_of(config: DataConfig) -> DatasetSpec:
    """The spec of a configured dataset; that of drawn scenes has the configured classes.

    Raises:
        ValueError: unknown dataset, or a number of classes that cannot be drawn.
        DataError: the description of somebody's own folder is missing or wrong.
    """
    if config.dataset not in CATALOG:
        raise ValueError(
            f"Unknown dataset {config.dataset!r}; known: {', '.join(sorted(CATALOG))}."
        )
    spec = CATALOG[config.dataset]
    if config.dataset == "folder":
        return _described(spec, data_root(config))
    if config.dataset != "synthetic":
        return spec
    count = synthetic_of(config).num_classes
    if not 2 <= count <= MAX_DRAWN_CLASSES:
        raise ValueError(
            f"data.drawn.num_classes is {count}; between 2 and {MAX_DRAWN_CLASSES} can be drawn."
        )
    return replace(spec, class_names=spec.class_names[:count], palette=spec.palette[:count])


def num_classes(config: DataConfig) -> int:
    """Number of classes, background included."""
    return len(spec_of(config).class_names)


def synthetic_of(config: DataConfig) -> SyntheticConfig:
    """How the scenes of a synthetic dataset are drawn; the defaults where nothing is said."""
    return config.drawn or SyntheticConfig()


def data_root(config: DataConfig) -> Path:
    """Folder of the dataset's tree; by default below `data/` of the checkout.

    Drawn scenes of different sizes, counts or seeds get different default folders. Of a packed
    dataset in an object store it is a folder of this machine with the small files.

    Raises:
        DataError: nothing is packed at a URL.
        Unreachable: its server does not answer.
    """
    if is_url(config.root):
        from datasets.shards.reader import download_index

        place = hashlib.sha256(config.root.encode()).hexdigest()[:16]
        return download_index(config.root, cache_root(config) / "roots" / place)
    if config.root:
        return Path(config.root)
    default = home() / "data" / config.dataset
    if config.dataset != "synthetic":
        return default
    drawn = synthetic_of(config)
    counts = f"{drawn.num_train}+{drawn.num_val}"
    name = f"{counts}-{drawn.width}x{drawn.height}-c{drawn.num_classes}-s{drawn.seed}"
    return default / f"{name}-v{SYNTHETIC_VERSION}"


def cache_root(config: DataConfig) -> Path:
    """Folder of this machine for what comes from an object store."""
    if config.cache:
        return Path(config.cache).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "ipixmatch"


def _described(spec: DatasetSpec, root: Path) -> DatasetSpec:
    """Somebody's own folder, as its `dataset.yaml` has it."""
    described = read_description(root)
    return replace(
        spec,
        class_names=described.class_names,
        palette=tuple(voc_colour(label) for label in range(len(described.class_names))),
        image_pattern=described.image_pattern,
        mask_pattern=described.mask_pattern,
        mask_values=described.mask_values,
        ignored_value=described.ignored_value,
    )
