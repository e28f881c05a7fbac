"""`datasets verify`: read every file of a tree and report all defects at once."""

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.config import SyntheticConfig
from datasets.dataset import nothing_scored, open_tree, shown_classes
from datasets.errors import DataError
from datasets.files import file_sha256
from datasets.images.tree import ImageTree
from datasets.known.registry import KNOWN
from datasets.known.synthetic import scene_ids
from datasets.location import DatasetLocation
from datasets.manifest import FILE_NAME, Manifest, read_manifest, write_manifest
from datasets.prepare.defects import Defect, defect_of
from datasets.progress import Progress, Say, silent
from datasets.spec import DatasetSpec, absent_text
from datasets.splits.lists import load_split, present_splits
from datasets.wording import quantity

_THREADS = 8


@dataclass(frozen=True)
class Needs:
    """Ids whose image must be there, those whose mask must be there too, those for validation."""

    images: tuple[str, ...]
    masks: frozenset[str]
    validation: frozenset[str]


def defects(location: DatasetLocation, say: Say = silent) -> Iterator[Defect]:
    """Every defect of the tree, file by file; none when all is well.

    Reads all images of all lists at the root and every mask that is there, and compares them with
    the manifest where there is one. A sound tree without manifest gets one, and a sound folder of
    one's own that has grown gets its new files into it.

    Args:
        location: of the dataset.
        say: given a line of progress every two seconds.

    Raises:
        DataError: nothing can be said, because there is no tree or no list.
    """
    location = as_drawn(location)
    spec, root = location.spec, location.root
    manifest = read_manifest(root)
    tree = open_tree(location)
    needs = _needs(location, tree, manifest)
    progress = Progress(len(needs.images), f"verify {spec.name}", say)
    count, files, shown, scored = 0, {}, Counter[int](), Counter[int]()
    for name, reading in zip(needs.images, _readings(tree, needs), strict=True):
        count += len(reading.defects)
        yield from reading.defects
        files.update(reading.hashes)
        shown.update(reading.classes)
        if name in needs.validation:
            scored.update(reading.classes)
        progress.step()
    if set(shown) == {0} and not count:
        count += 1
        yield Defect(_one_class(spec, root))
    for text in [] if count else _unscored(spec, tree, needs, scored, say):
        count += 1
        yield Defect(text)
    _say_copies(tree, needs, files, say)
    if manifest is not None and tree.store is None:
        for change in _changes(root, manifest, files):
            count += 1
            yield change
        files = {**manifest.files, **files}
    # Other data sets are whole when they come; there the manifest stays as it was written.
    is_grown = spec.kind == "described" and manifest is not None and files != manifest.files
    if not count and tree.store is None and (manifest is None or is_grown):
        write_manifest(root, Manifest(spec.name, files))


def as_drawn(location: DatasetLocation) -> DatasetLocation:
    """The same location, with scenes drawn as the manifest there says and not as a setting says.

    Raises:
        DataError: no drawn scenes are there.
    """
    draw_spec = KNOWN[location.spec.name].draw_spec
    if draw_spec is None:
        return location
    manifest, root = read_manifest(location.root), location.root
    if manifest is None or manifest.drawing is None:
        raise DataError(
            f"{root} holds no drawn scenes. Draw them with `python -m datasets draw "
            f"{shlex.quote(f'root={root}')}`, or give the right folder with root=DIR."
        )
    numbers = {name: value for name, value in manifest.drawing.items() if name != "version"}
    drawing = SyntheticConfig(**numbers)
    return replace(location, spec=draw_spec(drawing), drawing=drawing)


def _needs(location: DatasetLocation, tree: ImageTree, manifest: Manifest | None) -> Needs:
    """All ids of all lists at the root and of the manifest; masks of those that a list labels."""
    if location.drawing is not None:
        train, validation = scene_ids(location.drawing)
        every = (*train, *validation)
        return Needs(every, frozenset(every), frozenset(validation))
    images: set[str] = set()
    masks: set[str] = set()
    validation_ids: set[str] = set()
    for name in present_splits(location):
        split = load_split(location, name)
        images.update(split.labelled, split.unlabelled, split.validation)
        masks.update(split.labelled, split.validation)
        validation_ids.update(split.validation)
    if manifest is not None:
        images.update(tree.names(manifest.files))
    if not images:
        cure = f"Bring them with `python -m datasets splits fetch {location.words}`."
        if location.spec.kind in ("described", "cut"):
            cure = f"Make them with `python -m datasets prepare {location.words}`."
        raise DataError(
            f"{location.lists} holds no lists, so nothing says which files are needed. {cure}"
        )
    return Needs(tuple(sorted(images)), frozenset(masks), frozenset(validation_ids))


@dataclass(frozen=True)
class _Reading:
    """What reading one image and its mask gave.

    Attributes:
        defects: of either.
        hashes: sha256 by path below the root.
        classes: that the mask shows.
    """

    defects: list[Defect]
    hashes: dict[str, str]
    classes: list[int]


def _readings(tree: ImageTree, needs: Needs) -> Iterator[_Reading]:
    """In the order of the ids; read by threads, since Pillow works without the lock."""
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        try:
            yield from pool.map(lambda name: _read(tree, name, needs), needs.images)
        finally:
            pool.shutdown(cancel_futures=True)


def _read(tree: ImageTree, name: str, needs: Needs) -> _Reading:
    has_mask = name in needs.masks or tree.has_mask(name)
    paths = (tree.image_path(name), tree.mask_path(name))
    wrong, read = [], []

    def note(error: DataError, path: Path) -> None:
        file = path.relative_to(tree.root).as_posix()
        wrong.append(defect_of(str(error), file, *paths))

    for path, reader in zip(paths[: 1 + has_mask], (tree.image, tree.mask), strict=False):
        try:
            read.append(reader(name))
        except DataError as error:
            note(error, path)
    if len({image.size for image in read}) > 1:
        try:
            tree.pair(name)
        except DataError as error:
            note(error, paths[1])
    shown = shown_classes(read[1]) if has_mask and not wrong else []
    return _Reading(wrong, _hashes(tree, name), shown)


def _hashes(tree: ImageTree, name: str) -> dict[str, str]:
    hashes: dict[str, str] = {}
    if tree.store is not None:  # it proves every item by its checksum
        return hashes
    for path in (tree.image_path(name), tree.mask_path(name)):
        with suppress(OSError):  # told already
            hashes[path.relative_to(tree.root).as_posix()] = file_sha256(path)
    return hashes


def _unscored(
    spec: DatasetSpec, tree: ImageTree, needs: Needs, scored: Counter[int], say: Say
) -> Iterator[str]:
    """A defect if no validation mask shows any class; a note to `say` if some class is missing."""
    absent = [name for label, name in enumerate(spec.class_names) if not scored[label]]
    if needs.validation and not scored:
        yield nothing_scored(tree, len(needs.validation), min(needs.validation))
    elif needs.validation and absent:
        say(f"note: {absent_text(absent)}")


def _say_copies(tree: ImageTree, needs: Needs, files: Mapping[str, str], say: Say) -> None:
    """A note to `say` if images are validated on and, as other files, also trained on."""
    trained, scored = {}, {}
    for name in needs.images:
        path = tree.image_path(name).relative_to(tree.root).as_posix()
        if path in files and name in needs.validation:
            scored[path] = files[path]
        elif path in files:
            trained[files[path]] = path
    twice = [(path, trained[digest]) for path, digest in scored.items() if digest in trained]
    if twice:
        path, other = twice[0]
        say(
            f"note: also trained on, as another file: {quantity(len(twice), 'validation image')}, "
            f"such as {path} with the bytes of {other}. That makes the score too good; take out "
            "one of each pair."
        )


def _one_class(spec: DatasetSpec, root: Path) -> str:
    return (
        f"{root}: no mask shows any class but {spec.class_names[0]!r}. Masks of 0 and 255 are "
        "usual elsewhere, but 255 is ignored here: say so in dataset.yaml (classes: {0: "
        "background, 255: cell}, ignore: null), or make the masks again."
    )


def _changes(root: Path, manifest: Manifest, files: dict[str, str]) -> Iterator[Defect]:
    """Where the files differ from the manifest."""
    accept = f"remove {root / FILE_NAME} and verify again to accept the new data"
    if manifest.drawing is not None:
        accept = f"remove {root}, and the scenes are drawn anew"
    for path, digest in sorted(manifest.files.items()):
        now = files.get(path) or (file_sha256(root / path) if (root / path).is_file() else "")
        if now != digest:
            state = "has changed" if now else "is gone"
            text = f"{root / path} {state} since {FILE_NAME} was written. Bring the file back, or "
            yield Defect(f"{text}{accept}.", path, state)
