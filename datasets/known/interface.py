"""`KnownDataset`: the facts and functions that each file of this folder gives of its dataset."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.config import SyntheticConfig
from datasets.known.assembly import Assembly
from datasets.spec import DatasetSpec


@dataclass(frozen=True)
class Archive:
    """A published archive that a program may download.

    Attributes:
        key: names it on the command line, to give a mirror.
        file: name of the file.
        address: where its authors publish it.
        md5: as torchvision states it; its authors publish none.
        about: for people.
    """

    key: str
    file: str
    address: str
    md5: str
    about: str


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """All that the project knows about one dataset.

    Attributes:
        spec: classes, colours and layout; of a dataset whose spec depends on the configuration or
            on a file, what the two functions below begin with.
        guidance: which files its users get where, with {root}; empty when there are none to get.
        archives: what may be downloaded.
        archive_members: pattern of the paths that are needed out of its archives.
        assemble: plans a tree from a dataset's spec, the folders that users have, and the root.
        easier_splits: how the names of splits begin that are a protocol of their own, easier than
            the others; empty when there are none.
        splits: numbers of labelled, unlabelled and validation images of the splits that `prepare`
            makes; empty where it makes none, or where they depend on the files.
        draw_spec: the spec of drawn scenes; None for other datasets.
        draw_folder: name of the folder of drawn scenes, other for other scenes.
        read_spec: reads the spec at a root that describes itself; None for other datasets.
    """

    spec: DatasetSpec
    guidance: str = ""
    archives: tuple[Archive, ...] = ()
    archive_members: str = ""
    assemble: Callable[[DatasetSpec, Sequence[Path], Path], Assembly] | None = None
    easier_splits: str = ""
    splits: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    draw_spec: Callable[[SyntheticConfig], DatasetSpec] | None = None
    draw_folder: Callable[[SyntheticConfig], str] | None = None
    read_spec: Callable[[Path], DatasetSpec] | None = None
