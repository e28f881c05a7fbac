"""Making list files by seed, for any dataset: which images get labels, which are held out."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datasets.errors import DataError
from datasets.files import files_below
from datasets.known.list_file import (
    can_be_listed,
    line_of,
    parse_lines,
    read_lines,
    write_list,
)
from datasets.known.synthetic import DRAWN_SPLITS
from datasets.location import DatasetLocation
from datasets.spec import IGNORED, DatasetSpec, mask_file
from datasets.splits.lists import (
    checked_split,
    list_files,
    load_split,
    present_splits,
    published_splits,
    seeded_order,
    split_names,
)
from datasets.wording import did_you_mean, quantity


def stratified(location: DatasetLocation, order: Sequence[str], count: int) -> list[str]:
    """Choose `count` ids that show each class in proportion to all images, as far as possible.

    The rarest class that still lacks images goes first; its images are taken in the given order.

    Args:
        location: of the dataset; every mask is read.
        order: ids, in the order in which they are preferred.
        count: how many to choose.
    """
    classes = {name: _classes(location, name) for name in order}
    total = Counter(label for labels in classes.values() for label in labels)
    # Shares are rounded, but a class that is there at all shall be there once.
    lacking = {label: max(1, round(number * count / len(order))) for label, number in total.items()}
    chosen: dict[str, None] = {}
    for label in sorted(total, key=lambda label: (total[label], label)):
        for name in order:
            is_wanted = lacking[label] > 0 and label in classes[name] and name not in chosen
            if is_wanted and len(chosen) < count:
                chosen[name] = None
                for shown in classes[name]:
                    lacking[shown] -= 1
    rest = [name for name in order if name not in chosen]
    return [*chosen, *rest[: count - len(chosen)]]


def _classes(location: DatasetLocation, name: str) -> frozenset[int]:
    """Classes that an image shows."""
    from datasets.images.tree import tree_of

    counts = tree_of(location.spec, location.root).mask(name).histogram()
    return frozenset(label for label in range(IGNORED) if counts[label])


_PART = re.compile(r"1of(\d+)|n(\d+)|all")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def make_lists(
    location: DatasetLocation, *, part: str, seed: int, name: str = "", stratify: bool = False
) -> str:
    """Make a labelled and an unlabelled list from the images that have masks.

    In a folder of one's own the images without mask join the unlabelled ones. Equal seeds give
    nested lists (the labelled images of 1of16 are among those of 1of8), but for stratified ones.

    Args:
        location: of the dataset.
        part: 1of16 or 1/16 and the like, n100 for a hundred labelled images, or all.
        seed: of the order in which images get labels.
        name: of the split; empty means `seed<seed>_<part>`.
        stratify: whether every class shall be in its share of the labelled images; reads all masks.

    Returns:
        The name to give as data.split.

    Raises:
        ValueError: a name of the published lists, or a part that is none.
        DataError: no masks, no validation list, or an existing list of that name.
    """
    part = part.replace("1/", "1of")
    _count_of(part, 1)  # what is no part cannot make a name
    name = name or f"seed{seed}_{part}" + ("_stratified" if stratify else "")
    _check_name(location, name)
    spec, folder = location.spec, location.lists
    if (folder / name).exists():
        raise DataError(f"{folder / name} exists; remove it, or give another name with name=NAME.")
    validation = _validation_ids(location)
    train = _training_ids(location, validation)
    count, order = _count_of(part, len(train)), seeded_order(train, seed)
    if count > len(train):
        raise DataError(
            f"{part} asks for {quantity(count, 'labelled image')}; there are {len(train)} with "
            "masks beside those for validation. Ask for fewer, or for all."
        )
    chosen = set(stratified(location, order, count) if stratify else order[:count])
    labelled = [entry for entry in train if entry in chosen]
    rest = [entry for entry in train if entry not in chosen]
    if spec.kind == "described":
        known = {*train, *validation}
        rest += [entry for entry in image_ids(spec, location.root) if entry not in known]
    checked_split(name, (labelled, rest, validation), where=str(folder / name))
    _check_listable(spec, location.root, [*labelled, *rest])
    for file, ids in zip(list_files(name), (labelled, rest, validation), strict=True):
        if file != "val.txt" or not (folder / file).is_file():
            write_list(folder / file, [line_of(spec, entry) for entry in ids])
    return name


def own_list_defects(location: DatasetLocation, split: str = "") -> list[str]:
    """Defects of lists that are not published ones; of one split, or of all."""
    if split and split not in split_names(location):
        names = split_names(location)
        near = did_you_mean(split, names)
        return [f"No list is called {split!r}; known: {', '.join(names) or 'none'}.{near}"]
    official, texts = published_splits(location.spec.name), []
    for name in present_splits(location):
        if name not in official and split in ("", name):
            try:
                load_split(location, name)
            except DataError as error:
                texts.append(str(error))
    return texts


def hold_out(location: DatasetLocation, *, part: str, seed: int) -> int:
    """Make the validation list of a folder of one's own, unless it is there; its length.

    Args:
        location: of the dataset.
        part: of the images that have masks: 1of5, 1/5 or n60.
        seed: of the order in which they are held out.

    Raises:
        ValueError: no such part.
        DataError: no masks, or nothing would be left to train on.
    """
    spec, root = location.spec, location.root
    path = location.lists / "val.txt"
    if path.is_file():
        return len(parse_lines(spec, read_lines(path), where=str(path)))
    masked = masked_ids(spec, root)
    count = _count_of(part.replace("1/", "1of"), len(masked))
    if count >= len(masked):
        raise DataError(
            f"{root} has {quantity(len(masked), 'mask')}, and val={part} would hold out {count} "
            "of them: nothing is left to train on. Draw more masks, or give a smaller val."
        )
    # Another order than that of the labels, which splits with the same seed hand out.
    chosen = set(seeded_order(masked, seed)[-count:])
    write_list(path, [line_of(spec, name) for name in masked if name in chosen])
    return count


def unlistable(spec: DatasetSpec, root: Path, names: Sequence[str]) -> list[str]:
    """One text per image whose name cannot stand in a list file."""
    return [
        f"{str(root / spec.image_file(name))!r} cannot be named in a list: its name holds a line "
        "end, is no Unicode text, or begins or ends with a blank. Rename it, and its mask."
        for name in names
        if not can_be_listed(spec, name)
    ]


def _check_listable(spec: DatasetSpec, root: Path, names: Sequence[str]) -> None:
    texts = unlistable(spec, root, names)
    if texts:
        raise DataError("\n".join(texts))


def image_ids(spec: DatasetSpec, root: Path) -> list[str]:
    """Ids that have an image on disk, sorted."""
    names = _matching(root, spec.image_pattern, "{id}")
    if spec.image_pattern.endswith("{id}"):
        names = [name for name in names if name.lower().endswith(SUFFIXES)]
    return names


def masked_ids(spec: DatasetSpec, root: Path) -> list[str]:
    """Ids that have a mask on disk, sorted.

    Raises:
        DataError: there is none.
    """
    masks = all_mask_files(spec, root)
    if "{stem}" in spec.mask_pattern:
        ids = {mask_file(spec.mask_pattern, name): name for name in image_ids(spec, root)}
        names = sorted(ids[path] for path in masks if path in ids)
    else:
        before, after = spec.mask_pattern.split("{id}")
        names = [path.removeprefix(before).removesuffix(after) for path in masks]
    if not names:
        cure = f"Put the dataset there first; `python -m datasets prepare {spec.name}` says which "
        cure += "files go where."
        if spec.kind == "described":
            cure = "Correct `masks` in dataset.yaml, or put them there."
        raise DataError(f"{root} has no mask {mask_file(spec.mask_pattern, '*')}. {cure}")
    return names


def all_mask_files(spec: DatasetSpec, root: Path) -> list[str]:
    """Paths below the root of the files that the pattern of masks takes, sorted by their ids."""
    variable = "{stem}" if "{stem}" in spec.mask_pattern else "{id}"
    names = _matching(root, spec.mask_pattern, variable)
    return [spec.mask_pattern.replace(variable, name) for name in names]


def _matching(root: Path, pattern: str, variable: str) -> list[str]:
    before, after = pattern.split(variable)
    # The part of a file name before the variable belongs to the pattern, not to a folder.
    start, prefix = root / before.rpartition("/")[0], before.rpartition("/")[2]
    return sorted(
        name.removeprefix(prefix).removesuffix(after)
        for name in files_below(start)
        if name.startswith(prefix) and name.endswith(after) and "/." not in f"/{name}"
    )


def _validation_ids(location: DatasetLocation) -> list[str]:
    """From `splits/val.txt`, else from the dataset's own list, else those whose ids say so."""
    spec, root = location.spec, location.root
    path = location.lists / "val.txt"
    if path.is_file():
        return parse_lines(spec, read_lines(path), where=str(path))
    if spec.validation_list and (root / spec.validation_list).is_file():
        return read_lines(root / spec.validation_list)
    prefix = spec.validation_prefix
    ids = [name for name in masked_ids(spec, root) if prefix and name.startswith(prefix)]
    if not ids:
        more = ", or bring the published one with `splits fetch`"
        if spec.kind == "described":
            more = f", or let `python -m datasets prepare {location.words}` hold images out"
        raise DataError(
            f"{root} has no validation list. Put one at {path} (lines like "
            f"{line_of(spec, 'ID')!r}){more}."
        )
    return ids


def _training_ids(location: DatasetLocation, validation: Sequence[str]) -> list[str]:
    kept_out, spec = set(validation), location.spec
    return [
        name
        for name in masked_ids(spec, location.root)
        if name not in kept_out and not name.startswith(spec.held_out)
    ]


def _check_name(location: DatasetLocation, name: str) -> None:
    if name in published_splits(location.spec.name) or name in DRAWN_SPLITS:
        raise ValueError(f"{name!r} is the name of a published split; give another with name=NAME.")
    if not re.search("[A-Za-z]", name) or not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise ValueError(
            f"A split cannot be called {name!r}: use letters, digits and underscores, and at least "
            "one letter (the command line reads 1_16 as a number)."
        )


def _count_of(part: str, total: int) -> int:
    match = _PART.fullmatch(part)
    if match is None or (part != "all" and not int(match[1] or match[2])):
        raise ValueError(f"{part!r} is no part; write 1of16 or 1/16 and the like, or n100, or all.")
    if part == "all":
        return total
    return -(-total // int(match[1])) if match[1] else int(match[2])
