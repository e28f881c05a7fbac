"""PASCAL VOC 2012 with the masks of SBD: 10,582 training images, 1,449 for validation.

Most training masks are not VOC's own but those of SBD (Hariharan et al., Semantic contours from
inverse detectors, ICCV 2011), which come as MATLAB files. Many people have both merged already, in
a folder `SegmentationClassAug` or as the README of UniMatch has them.
"""

import io
import shlex
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DataError
from datasets.known.assembly import (
    Assembly,
    Convert,
    complete_pairs,
    files_of,
    folders_below,
    miscounts,
    nothing_found,
)
from datasets.known.interface import Archive, KnownDataset
from datasets.known.list_file import parse_lines, read_lines
from datasets.spec import DatasetSpec, voc_colour
from datasets.wording import quantity

_CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
)
_COMPRESSED = 15  # kind of element in a MATLAB file
_NUM_IMAGES = {"train": 10582, "val": 1449}
_HINTS = {
    "train": "give VOCdevkit (VOCtrainval_11-May-2012.tar) and SBD (benchmark.tgz), both complete, "
    "or a merged SegmentationClassAug beside VOCdevkit",
    "val": "unpack VOCtrainval_11-May-2012.tar again, or check the list val.txt",
}
_GUIDANCE = """PASCAL VOC 2012 with the masks of SBD: 10582 training images, 1449 for validation.
1. Download both archives, or have them downloaded (3.4 GB in all; a cut download goes on):
     http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar
     https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz
     python -m datasets download voc to=DIR
2. python -m datasets prepare voc DIR/VOCtrainval_11-May-2012.tar DIR/benchmark.tgz root={root}
   Unpacked folders (VOCdevkit, benchmark_RELEASE) will do, and so will the pre-processed
   JPEGImages and SegmentationClass of the UniMatch repository's README.
3. python -m datasets splits fetch dataset=voc root={root}
What lies at the root then: JPEGImages/ID.jpg, SegmentationClass/ID.png, splits/."""


@dataclass(frozen=True)
class _Sources:
    """The folders found below the sources, by kind.

    Attributes:
        images: folders `JPEGImages` (and SBD's `img`), the better ones first.
        own_masks: `SegmentationClass` of a VOCdevkit: VOC's own masks.
        sbd: folders with SBD's `cls`.
        merged_masks: masks that somebody merged already, as for UniMatch.
        lists: `ImageSets/Segmentation` of a VOCdevkit.
    """

    images: list[Path] = field(default_factory=list)
    own_masks: list[Path] = field(default_factory=list)
    sbd: list[Path] = field(default_factory=list)
    merged_masks: list[Path] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)


def _assemble(spec: DatasetSpec, sources: Sequence[Path], root: Path) -> Assembly:
    """Plan the tree: VOC's own mask of an image if there is one, else SBD's, else a merged one.

    Raises:
        DataError: nothing of VOC is there, or no list says which images are for validation.
    """
    parts = _parts(sources)
    images = files_of(parts.images, ".jpg")
    own, merged = files_of(parts.own_masks, ".png"), files_of(parts.merged_masks, ".png")
    sbd = files_of([folder / "cls" for folder in parts.sbd], ".mat")
    validation = _validation(spec, parts.lists, root)
    listed = [name for folder in parts.lists for name in read_lines(folder / "train.txt")]
    training = sorted({*listed, *own, *sbd, *merged} - set(validation))
    masks: dict[str, tuple[Path, Convert | None]] = {}
    masks |= {name: (path, None) for name, path in merged.items()}
    masks |= {name: (path, sbd_mask) for name, path in sbd.items()}
    masks |= {name: (path, None) for name, path in own.items()}
    pairs, lacks = complete_pairs([*training, *validation], images, masks)
    counts = {"train": len(training), "val": len(validation)}
    lacks += miscounts(counts, _NUM_IMAGES, _HINTS)
    origins = Counter(
        "VOC" if name in own else "SBD" if name in sbd else "a merged set" for name in training
    )
    origin_counts = ", ".join(
        f"{quantity(count, 'mask')} of {name}" for name, count in sorted(origins.items())
    )
    lists = {
        "ImageSets/Segmentation/trainaug.txt": training,
        "ImageSets/Segmentation/val.txt": validation,
    }
    summary = (
        f"{quantity(len(training), 'training image')} ({origin_counts}), {len(validation)} "
        f"for validation"
    )
    return Assembly(pairs, lists, summary, lacks)


def _parts(sources: Sequence[Path]) -> _Sources:
    """Look for VOCdevkit, SBD and pre-processed trees."""
    parts = _Sources()
    for folder, names in folders_below(sources):
        if "JPEGImages" in names or any(name.startswith("SegmentationClass") for name in names):
            _add_voc(parts, folder, names)
            names.clear()  # nothing to look for below
        elif "cls" in names:
            parts.sbd.append(folder)
            names.clear()
    parts.images.extend(folder / "img" for folder in parts.sbd if (folder / "img").is_dir())
    if not (parts.own_masks or parts.sbd or parts.merged_masks or parts.images):
        raise nothing_found(
            sources,
            "VOC: neither JPEGImages nor SegmentationClass (VOCdevkit/VOC2012), "
            "nor cls (benchmark_RELEASE/dataset of SBD)",
        )
    return parts


def _add_voc(parts: _Sources, folder: Path, names: list[str]) -> None:
    if "JPEGImages" in names:
        parts.images.insert(0, folder / "JPEGImages")
    lists = folder / "ImageSets/Segmentation"
    has_lists = (lists / "val.txt").is_file()
    if has_lists:
        parts.lists.append(lists)
    for name in sorted(names):
        if name == "SegmentationClass" and has_lists:
            parts.own_masks.append(folder / name)
        elif name.startswith("SegmentationClass") and "Raw" not in name:
            parts.merged_masks.append(folder / name)


def _validation(spec: DatasetSpec, lists: Sequence[Path], root: Path) -> list[str]:
    if lists:
        return read_lines(lists[0] / "val.txt")
    path = root / "splits/val.txt"
    if path.is_file():
        return parse_lines(spec, read_lines(path), where=str(path))
    raise DataError(
        "Nothing says which images are for validation: no source has ImageSets/Segmentation/"
        f"val.txt. Bring the published list first (python -m datasets splits fetch dataset=voc "
        f"{shlex.quote(f'root={root}')}), or give VOCdevkit as a source, too."
    )


def sbd_mask(data: bytes, path: str) -> NDArray[np.uint8]:
    """The class indices in a file of SBD's folder `cls`, (height, width).

    Args:
        data: the file's bytes.
        path: of the file, for errors.

    Raises:
        DataError: no such file, or a broken one.
    """
    from scipy.io import loadmat  # 0.2 s, and only here
    from scipy.io.matlab import MatReadError

    if data.startswith(b"\x89HDF") or data[:20].startswith(b"MATLAB 7.3"):
        raise DataError(
            f"{path} is of MATLAB's version 7.3. SBD's own files are of version 5: take "
            "cls/ from benchmark.tgz."
        )
    if not data.startswith(b"MATLAB 5.0") or data[126:128] != b"IM":
        raise DataError(
            f"{path} is no MATLAB file of version 5, little end first. Bring a fresh copy from "
            "benchmark.tgz."
        )
    try:
        _prove_elements(data)
        variables = loadmat(io.BytesIO(data), variable_names=["GTcls"])
        mask = variables["GTcls"]["Segmentation"][0, 0] if "GTcls" in variables else None
    except (
        MatReadError,
        struct.error,
        zlib.error,
        ValueError,
        TypeError,
        LookupError,
        OSError,
    ) as error:
        raise _broken(path, str(error) or type(error).__name__) from error
    if mask is None:
        raise DataError(
            f"{path} holds no GTcls: is it of SBD's folder cls/? (inst/ holds GTinst.) Take it "
            "from cls/ of benchmark.tgz."
        )
    if mask.ndim != 2 or not mask.size or not np.issubdtype(mask.dtype, np.number):
        raise _broken(path, "Segmentation is no matrix of numbers")
    if mask.min() < 0 or mask.max() > 255:
        raise _broken(path, "Segmentation does not fit 8 bits")
    return np.ascontiguousarray(mask.astype(np.uint8))


def _prove_elements(data: bytes) -> None:
    """Decompress every element whole: scipy stops before zlib's checksum, so misses damage."""
    start = 128  # bytes of the file's head
    while start < len(data):
        kind, size = struct.unpack_from("<II", data, start)
        content = data[start + 8 : start + 8 + size]
        if len(content) < size:
            raise ValueError(f"{size} bytes are promised, {len(content)} are there")
        if kind == _COMPRESSED:
            zlib.decompress(content)
        start += 8 + size


def _broken(path: str, reason: str) -> DataError:
    return DataError(f"{path} is broken ({reason}). Bring a fresh copy from benchmark.tgz.")


PASCAL_VOC = KnownDataset(
    spec=DatasetSpec(
        name="voc",
        class_names=tuple(_CLASSES.split()),
        palette=tuple(voc_colour(label) for label in range(21)),
        image_pattern="JPEGImages/{id}.jpg",
        mask_pattern="SegmentationClass/{id}.png",
        validation_list="ImageSets/Segmentation/val.txt",
    ),
    guidance=_GUIDANCE,
    archives=(
        Archive(
            "voc",
            "VOCtrainval_11-May-2012.tar",
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            "6cd6e144f989b92b3379bac3b3de84fd",
            "PASCAL VOC 2012 (2.0 GB)",
        ),
        Archive(
            "sbd",
            "benchmark.tgz",
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
            "semantic_contours/benchmark.tgz",
            "82b4d87ceb2ed10f6038a1cba92111cb",
            "the masks of SBD (1.4 GB)",
        ),
    ),
    archive_members=(
        r"JPEGImages/[^/]+\.jpg|SegmentationClass[A-Za-z]*/[^/]+\.png"
        r"|ImageSets/Segmentation/[^/]+\.txt|cls/[^/]+\.mat|img/[^/]+\.jpg"
    ),
    assemble=_assemble,
    easier_splits="u2pl_",  # labels images of high-quality masks only
)
