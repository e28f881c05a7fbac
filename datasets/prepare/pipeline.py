"""Bringing a dataset into place: from what users have, or in their own folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.archives import is_archive, remove_unpacked, unpacked
from datasets.assembly import assemble
from datasets.catalog import DatasetSpec
from datasets.config import DataConfig
from datasets.errors import DataError
from datasets.location import data_root, spec_of
from datasets.own_lists import hold_out, image_ids, make_lists, masked_ids
from datasets.placing import How, place
from datasets.splits import load_split
from datasets.tree import nearby
from datasets.unlisted import unlisted
from datasets.verify import defects

Say = Callable[[str], None]
ALL = "all"  # the split of a folder of one's own in which every mask is used


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How `prepare` shall work.

    Attributes:
        how: copy files, or link them.
        partial: whether less than the whole dataset will do.
    """

    how: How = "copy"
    partial: bool = False


def prepare_published(
    config: DataConfig, sources: Sequence[Path], wish: Wish, say: Say
) -> list[str]:
    """Bring VOC or Cityscapes from where it was unpacked to the root.

    Args:
        config: dataset and root.
        sources: folders, or archives.
        wish: how.
        say: given lines for people.

    Returns:
        Defects by file; what they concern was not brought.

    Raises:
        DataError: a source is no such dataset, parts are missing, or the root holds other things.
    """
    spec, root = spec_of(config), data_root(config)
    _check_apart(sources, root)
    folders = [unpacked(path, root, say) if is_archive(path) else path for path in sources]
    assembly = assemble(spec, folders, root)
    say(f"{spec.name}: {assembly.summary}")
    if assembly.lacks and not wish.partial:
        shown = "\n  ".join(assembly.lacks[:8])
        more = f"\n  and {len(assembly.lacks) - 8} more" if len(assembly.lacks) > 8 else ""
        raise DataError(
            f"The sources are not complete, so nothing was brought:\n  {shown}{more}\n"
            "Add what is missing as another source, or take what is there with counts=any."
        )
    outcome = place(assembly, spec, root, how=wish.how, say=say)
    if not outcome.defects and wish.how == "copy":
        remove_unpacked(root)
    say(f"{outcome.num_brought} pairs brought, {outcome.num_found} were there already")
    return outcome.defects


def prepare_folder(config: DataConfig, *, validation: str, seed: int, say: Say) -> list[str]:
    """Prove somebody's own folder, and make its validation list and the split `all`.

    Args:
        config: root.
        validation: part of the images with masks that is held out, 1of5 or n60.
        seed: of that choice.
        say: given lines for people.

    Returns:
        Defects by file; without any the folder has its manifest afterwards.

    Raises:
        DataError: the description is missing or wrong, or there are no images or masks.
    """
    spec, root = spec_of(config), data_root(config)
    images, masks = image_ids(spec, root), masked_ids(spec, root)
    if not images:
        raise DataError(
            f"{root} has no image {spec.image_file('*')}. Correct `images` in dataset.yaml, or put "
            "them there."
        )
    lone = sorted(set(masks) - set(images))
    found = [
        f"{root / spec.mask_file(name)} has no image {spec.image_file(name)}. "
        f"{nearby(root / spec.image_file(name)) or 'Put it there, or remove the mask.'}"
        for name in lone
    ]
    found += _shared_masks(spec, root, images)
    if found:
        return found
    num_held = hold_out(config, part=validation, seed=seed)
    if not (root / "splits" / ALL).is_dir():
        make_lists(config, part=ALL, seed=seed, name=ALL)
    split = load_split(replace(config, split=ALL))
    say(
        f"folder: {len(spec.class_names)} classes, {len(split.labelled)} labelled images, "
        f"{len(split.unlabelled)} unlabelled, {num_held} for validation"
    )
    for note in unlisted(spec, root, split):
        say(note)
    return list(defects(config, say))


def _shared_masks(spec: DatasetSpec, root: Path, images: Sequence[str]) -> list[str]:
    """Masks whose pattern names no extension, where images differ in nothing else."""
    claims: dict[str, list[str]] = {}
    for name in images:
        claims.setdefault(spec.mask_file(name), []).append(spec.image_file(name))
    return [
        f"{root / mask} would be the mask of {' and '.join(claimed)}. Rename or remove all but one."
        for mask, claimed in claims.items()
        if len(claimed) > 1 and (root / mask).is_file()
    ]


def _check_apart(sources: Sequence[Path], root: Path) -> None:
    """The root must be no part of a source: nothing there is ours."""
    place = root.resolve()
    for source in sources:
        inside = source.resolve()
        if place == inside or inside in place.parents:
            raise DataError(
                f"The root {root} lies in the source {source}, where nothing may be changed. Give "
                "another folder with root=DIR (how=link needs no space on the same disk)."
            )
