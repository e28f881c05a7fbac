"""`datasets prepare`: copy a published dataset into a tree, or verify a user's own folder."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from datasets.dataset import missing_files, open_tree
from datasets.errors import DataError
from datasets.known.folder import DESCRIPTION_FILE
from datasets.known.list_file import parse_lines, read_lines
from datasets.known.registry import KNOWN
from datasets.location import DatasetLocation
from datasets.manifest import read_manifest
from datasets.prepare.archives import is_archive, remove_unpacked, unpacked
from datasets.prepare.copy import How, copy_into_place
from datasets.prepare.defects import SHOWN, Defect
from datasets.prepare.pairing import any_ending, image_folder, pairing_defects, picture_files
from datasets.prepare.verify import defects
from datasets.progress import Say
from datasets.spec import DatasetSpec
from datasets.splits.generate import (
    all_mask_files,
    hold_out,
    image_ids,
    make_lists,
    masked_ids,
    unlistable,
)
from datasets.splits.lists import Split, list_files, load_split, present_splits
from datasets.splits.published import list_defects
from datasets.wording import listed, quantity

ALL = "all"  # the split of a user's own folder in which every mask is used


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How `prepare` shall work.

    Attributes:
        how: copy files, or link them.
        partial: whether less than the whole dataset will do.
    """

    how: How = "copy"
    partial: bool = False


def missing_parts(location: DatasetLocation) -> list[str]:
    """Missing files of a published dataset, found by name without reading any; empty if none."""
    present = present_splits(location)
    if not present:
        lists = list_defects(location)
        if read_manifest(location.root) is None:
            return [f"{location.root}: no images and masks were brought yet", *lists]
        return lists
    tree, parts = open_tree(location), []
    for name in present:
        absent = missing_files(tree, load_split(location, name))
        if absent:
            parts.append(
                f"{quantity(len(absent), 'file')} of split {name}, the first is {absent[0]}"
            )
    return parts


def guidance(location: DatasetLocation) -> str:
    """Which files of a published dataset go where."""
    return KNOWN[location.spec.name].guidance.format(root=shlex.quote(str(location.root)))


def prepare_published(
    location: DatasetLocation, sources: Sequence[Path], options: PrepareOptions, say: Say
) -> list[Defect]:
    """Copy or link a published dataset from its unpacked folders or archives to the root.

    Args:
        location: of the dataset.
        sources: folders, or archives.
        options: how.
        say: given lines for people.

    Returns:
        Defects by file; what they concern was not brought.

    Raises:
        DataError: a source is no such dataset, parts are missing, or the root holds other things.
    """
    spec, root, known = location.spec, location.root, KNOWN[location.spec.name]
    assert known.assemble is not None, "only published datasets have sources"
    _check_apart(sources, root)
    folders = [
        unpacked(path, root, known.archive_members, say) if is_archive(path) else path
        for path in sources
    ]
    assembly = known.assemble(spec, folders, root)
    say(f"{spec.name}: {assembly.summary}")
    if assembly.lacks and not options.partial:
        shown = "\n  ".join(assembly.lacks[:8])
        more = f"\n  and {len(assembly.lacks) - 8} more" if len(assembly.lacks) > 8 else ""
        raise DataError(
            f"The sources are not complete, so nothing was brought:\n  {shown}{more}\n"
            "Add what is missing as another source, or take what is there with counts=any."
        )
    outcome = copy_into_place(assembly, spec, root, how=options.how, say=say)
    if not outcome.defects and options.how == "copy":
        remove_unpacked(root)
    say(f"{quantity(outcome.num_brought, 'pair')} brought, {outcome.num_found} there already")
    return outcome.defects


def prepare_folder(
    location: DatasetLocation, *, validation: str, seed: int, say: Say
) -> list[Defect]:
    """Prove a user's own folder, and make its validation list and the split `all`.

    Args:
        location: of the folder.
        validation: part of the images with masks that is held out, 1of5 or n60.
        seed: of that choice.
        say: given lines for people.

    Returns:
        Defects by file; without any the folder has its manifest afterwards.

    Raises:
        DataError: there are no images or masks, or lists that are there are wrong.
    """
    spec, root = location.spec, location.root
    images = image_ids(spec, root)
    if not images:
        raise DataError(_no_image(spec, root))
    wrong = [*pairing_defects(spec, root, images), *_unlistable(spec, root, images)]
    if wrong:
        return wrong
    with _lists_or_none(location) as is_right:
        had_validation = (location.lists / "val.txt").is_file()
        num_held = hold_out(location, part=validation, seed=seed)
        if not had_validation:
            _check_not_trained_on(location)
        if not (location.lists / ALL).is_dir():
            make_lists(location, part=ALL, seed=seed, name=ALL)
        split = load_split(location, ALL)
        say(
            f"{spec.name}: {len(spec.class_names)} classes, "
            f"{quantity(len(split.labelled), 'labelled image')}, "
            f"{len(split.unlabelled)} unlabelled, {num_held} for validation"
        )
        for note in unlisted(location, split):
            say(note)
        wrong = list(defects(location, say))
        if not wrong:
            is_right.append(True)
    return wrong


def _unlistable(spec: DatasetSpec, root: Path, images: Sequence[str]) -> Iterator[Defect]:
    """Images whose name cannot stand in a list file."""
    for name in images:
        for text in unlistable(spec, root, [name]):
            yield Defect(text, repr(spec.image_file(name)), "unlistable")


def _check_not_trained_on(location: DatasetLocation) -> None:
    """Raise if a new validation list holds images of training lists that were there before it."""
    path = location.lists / "val.txt"
    held = set(parse_lines(location.spec, read_lines(path), where=str(path)))
    for name in present_splits(location):
        for file in (location.lists / list_file for list_file in list_files(name)[:2]):
            lines = read_lines(file) if file.is_file() else []
            if held & set(parse_lines(location.spec, lines, where=str(file))):
                raise DataError(
                    f"{path} is gone, and a new one would hold images that the lists of the split "
                    f"{name!r} train on. Bring it back, or say val= and seed= as they were then, "
                    f"or remove {location.lists} and prepare again, which makes other lists."
                )


def _no_image(spec: DatasetSpec, root: Path) -> str:
    """Says that no image is there, and which pictures are."""
    text = f"{root} has no image {spec.image_file('*')}."
    pictures = sorted(
        picture_files(root, image_folder(spec, root)) - set(all_mask_files(spec, root))
    )
    if not pictures:
        return f"{text} Correct `images` in {DESCRIPTION_FILE}, or put them there."
    cure = any_ending(spec)
    more = f": {cure} take all of .jpg, .png, ..." if cure else "."
    return (
        f"{text} {quantity(len(pictures), 'other picture')}: {listed(pictures, SHOWN)}. Correct "
        f"{DESCRIPTION_FILE}{more}"
    )


@contextmanager
def _lists_or_none(location: DatasetLocation) -> Iterator[list[bool]]:
    """Remove the lists that the block makes, unless it fills the list that it is given.

    The cure of a defect is often to rename or remove files, which lists would go on to name.
    """
    paths = [location.lists / file for file in list_files(ALL)]
    made = [path for path in paths if not path.exists()]
    is_right: list[bool] = []
    try:
        yield is_right
    finally:
        for path in [] if is_right else made:
            path.unlink(missing_ok=True)
        for folder in [] if is_right else (location.lists / ALL, location.lists):
            with suppress(OSError):  # it holds lists of the user's, or was never made
                folder.rmdir()


def unlisted(location: DatasetLocation, split: Split) -> list[str]:
    """One line for each reason why images of a user's own folder are left out.

    Args:
        location: of the folder.
        split: that all images should be in.
    """
    spec, root, notes = location.spec, location.root, []
    images = image_ids(spec, root)
    in_lists = {*split.labelled, *split.unlabelled, *split.validation}
    late = [name for name in images if name not in in_lists]
    again = f"remove {location.lists / split.name} and prepare again"
    if late:
        notes.append(
            f"note: no list of the split {split.name!r} names {quantity(len(late), 'image')}, the "
            f"first is {spec.image_file(late[0])}; {again} to take them in"
        )
    masked = set(masked_ids(spec, root))
    new = [name for name in split.unlabelled if name in masked]
    if new:
        notes.append(
            f"note: the split {split.name!r} takes {quantity(len(new), 'image')} with a mask as "
            f"unlabelled, the first is {spec.image_file(new[0])}; if the masks are new, {again} to "
            "learn from them"
        )
    known = {spec.image_file(name) for name in images} | set(all_mask_files(spec, root))
    others = sorted(picture_files(root, image_folder(spec, root)) - known)
    if others:
        cure = any_ending(spec)
        cure = f"Rename them, or write {cure}, which takes all of .jpg, .png, ..." if cure else ""
        notes.append(
            f"note: no pattern of {DESCRIPTION_FILE} takes {quantity(len(others), 'picture')}: "
            f"{listed(others, SHOWN)}. {cure}".rstrip()
        )
    return notes


def _check_apart(sources: Sequence[Path], root: Path) -> None:
    """Raise if the root lies in a source: sources are never changed."""
    target = root.resolve()
    for source in sources:
        inside = source.resolve()
        if target == inside or inside in target.parents:
            raise DataError(
                f"The root {root} lies in the source {source}, where nothing may be changed. Give "
                "another folder with root=DIR (how=link needs no space on the same disk)."
            )
