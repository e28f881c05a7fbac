"""Which dataset a configuration means, and where its files lie. Needs neither torch nor Pillow."""

import hashlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from datasets.config import DataConfig, SyntheticConfig
from datasets.known.registry import known_dataset
from datasets.spec import DatasetSpec
from datasets.storage.open import folder_of, is_url

HOME_VARIABLE = "IPIXMATCH_HOME"


@dataclass(frozen=True)
class DatasetLocation:
    """A configured dataset: its spec and where its files are.

    Attributes:
        spec: classes and layout.
        root: folder with its images and masks; for a dataset packed in an object store, the local
            folder with the index and the lists.
        cache: local folder for what was fetched from an object store.
        cache_bytes: largest size of the items in it.
        url: of the object store; empty when the files lie in a folder.
        drawing: how the synthetic scenes are drawn; None for every other dataset.
    """

    spec: DatasetSpec
    root: Path
    cache: Path
    cache_bytes: int
    url: str = ""
    drawing: SyntheticConfig | None = None

    @property
    def lists(self) -> Path:
        """Folder of the list files."""
        return self.root / "splits"

    @property
    def words(self) -> str:
        """The arguments of `python -m datasets` that name this dataset and root."""
        return f"dataset={self.spec.name} {shlex.quote(f'root={self.root}')}"


def locate(config: DataConfig) -> DatasetLocation:
    """Look up the configured dataset; reads the `dataset.yaml` of a user's own folder.

    Raises:
        ValueError: unknown dataset, or a number of classes that cannot be drawn.
        DataError: the description of a user's own folder is missing or wrong, or nothing is
            packed at the root's URL.
        Unreachable: the server of that URL does not answer.
    """
    return DatasetLocation(
        spec=spec_of(config),
        root=data_root(config),
        cache=cache_root(config),
        cache_bytes=int(config.cache_gib * 2**30),
        url=config.root if is_url(config.root) else "",
        drawing=_drawing(config),
    )


def spec_of(config: DataConfig) -> DatasetSpec:
    """The spec of a configured dataset; that of drawn scenes has the configured classes.

    Raises:
        ValueError, DataError, Unreachable: as `locate`, the last one for a user's folder only.
    """
    known, drawing = known_dataset(config.dataset), _drawing(config)
    if known.draw_spec and drawing:
        return known.draw_spec(drawing)
    return known.read_spec(data_root(config)) if known.read_spec else known.spec


def num_classes(config: DataConfig) -> int:
    """Number of classes, background included."""
    return len(spec_of(config).class_names)


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

        name = hashlib.sha256(config.root.encode()).hexdigest()[:16]
        return download_index(config.root, cache_root(config) / "roots" / name)
    if config.root:
        return folder_of(config.root)
    default = home() / "data" / config.dataset
    known, drawing = known_dataset(config.dataset), _drawing(config)
    return default / known.draw_folder(drawing) if known.draw_folder and drawing else default


def is_here(config: DataConfig) -> bool:
    """Whether a configured dataset's folder is on this machine; of a bucket's nobody is asked."""
    return not is_url(config.root) and data_root(config).exists()


def cache_root(config: DataConfig) -> Path:
    """Local folder for what was fetched from an object store."""
    if config.cache:
        return Path(config.cache).expanduser()
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(user_cache).expanduser() / "ipixmatch"


def home() -> Path:
    """The folder of `data/` and `weights/` where no setting names another: the checkout.

    A launch runs a copy of the code without these folders, so it names the checkout in the
    environment variable IPIXMATCH_HOME.
    """
    named = os.environ.get(HOME_VARIABLE)
    return Path(named) if named else Path(__file__).resolve().parents[1]


def _drawing(config: DataConfig) -> SyntheticConfig | None:
    """How the scenes of a drawn dataset are drawn, by default as `SyntheticConfig`; else None."""
    is_drawn = known_dataset(config.dataset).spec.kind == "drawn"
    return config.drawn or SyntheticConfig() if is_drawn else None
