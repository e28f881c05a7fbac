"""Making list files by seed, for any dataset: which images get labels, which are held out."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets.catalog import IGNORED, DatasetSpec, mask_file
from datasets.config import DataConfig
from datasets.errors import DataError
from datasets.location import data_root, spec_of
from datasets.splits.lists import (
    DRAWN_SPLITS,
    checked_split,
    line_of,
    list_files,
    load_split,
    parse_lines,
    present_splits,
    published_splits,
    read_lines,
    seeded_order,
    split_names,
)
from datasets.splits.published import write_list


def stratified(config: DataConfig, order: Sequence[str], count: int) -> list[str]:
    """So many of the ids that every class is in its share of them, as far as that can be.

    The rarest class that still lacks images goes first; its images are taken in the given order.

    Args:
        config: dataset and root; every mask is read.
        order: ids, in the order in which they are preferred.
        count: how many to choose.
    """
    classes = {name: _classes(config, name) for name in order}
    total = Counter(label for found in classes.values() for label in found)
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


def _classes(config: DataConfig, name: str) -> frozenset[int]:
    """Classes that an image shows."""
    from datasets.images.tree import tree_of

    counts = tree_of(spec_of(config), data_root(config)).mask(name).histogram()
    return frozenset(label for label in range(IGNORED) if counts[label])


_PART = re.compile(r"1of(\d+)|n(\d+)|all")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def make_lists(
    config: DataConfig, *, part: str, seed: int, name: str = "", stratify: bool = False
) -> str:
    """Make a labelled and an unlabelled list from the images that have masks.

    In a folder of one's own the images without mask join the unlabelled ones. Equal seeds give
    nested lists (the labelled images of 1of16 are among those of 1of8), but for stratified ones.

    Args:
        config: dataset and root.
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
    _check_name(config, name)
    spec, folder = spec_of(config), data_root(config) / "splits"
    if (folder / name).exists():
        raise DataError(f"{folder / name} exists; remove it, or give another name with name=NAME.")
    validation = _validation_ids(config)
    train = _training_ids(config, validation)
    count, order = _count_of(part, len(train)), seeded_order(train, seed)
    if count > len(train):
        raise DataError(
            f"{part} asks for {count} labelled images; there are {len(train)} with masks beside "
            "those for validation. Ask for fewer, or for all."
        )
    chosen = set(stratified(config, order, count) if stratify else order[:count])
    labelled = [entry for entry in train if entry in chosen]
    rest = [entry for entry in train if entry not in chosen]
    if config.dataset == "folder":
        known = {*train, *validation}
        rest += [entry for entry in image_ids(spec, data_root(config)) if entry not in known]
    checked_split(name, (labelled, rest, validation), where=str(folder / name))
    for file, ids in zip(list_files(name), (labelled, rest, validation), strict=True):
        if file != "val.txt" or not (folder / file).is_file():
            write_list(folder / file, [line_of(spec, entry) for entry in ids])
    return name


def own_list_defects(config: DataConfig, split: str = "") -> list[str]:
    """What is wrong with the lists that are nobody's publication; of one split, or of all."""
    found = []
    own = [name for name in present_splits(config) if name not in published_splits(config.dataset)]
    if split and split not in split_names(config):
        known = ", ".join(split_names(config)) or "none"
        return [f"no list is called {split!r}; known: {known}"]
    for name in own:
        if split in ("", name):
            try:
                load_split(replace(config, split=name))
            except DataError as error:
                found.append(str(error))
    return found


def hold_out(config: DataConfig, *, part: str, seed: int) -> int:
    """Make the validation list of a folder of one's own, unless it is there; its length.

    Args:
        config: dataset and root.
        part: of the images that have masks: 1of5, 1/5 or n60.
        seed: of the order in which they are held out.

    Raises:
        ValueError: no such part.
        DataError: no masks, or nothing would be left to train on.
    """
    spec, root = spec_of(config), data_root(config)
    path = root / "splits/val.txt"
    if path.is_file():
        return len(read_lines(path))
    masked = masked_ids(spec, root)
    count = _count_of(part.replace("1/", "1of"), len(masked))
    if count >= len(masked):
        raise DataError(
            f"{root} has {len(masked)} masks, and val={part} would hold out {count} of them: "
            "nothing is left to train on. Draw more masks, or give a smaller val."
        )
    # Another order than that of the labels, which splits with the same seed hand out.
    chosen = set(seeded_order(masked, seed)[-count:])
    write_list(path, [line_of(spec, name) for name in masked if name in chosen])
    return count


def image_ids(spec: DatasetSpec, root: Path) -> list[str]:
    """Ids that have an image on disk, sorted."""
    found = _matching(root, spec.image_pattern, "{id}")
    if spec.image_pattern.endswith("{id}"):
        found = [name for name in found if name.lower().endswith(SUFFIXES)]
    return found


def masked_ids(spec: DatasetSpec, root: Path) -> list[str]:
    """Ids that have a mask on disk, sorted.

    Raises:
        DataError: there is none.
    """
    if "{stem}" in spec.mask_pattern:
        stems = {mask_file(spec.mask_pattern, name): name for name in image_ids(spec, root)}
        found = sorted(
            stems[path]
            for stem in _matching(root, spec.mask_pattern, "{stem}")
            if (path := spec.mask_pattern.format(stem=stem)) in stems
        )
    else:
        found = _matching(root, spec.mask_pattern, "{id}")
    if not found:
        raise DataError(
            f"{root} has no mask {mask_file(spec.mask_pattern, '*')}. Put the dataset there first; "
            f"`python -m datasets prepare {spec.name}` says which files go where."
        )
    return found


def _matching(root: Path, pattern: str, place: str) -> list[str]:
    before, after = pattern.split(place)
    # The part of a file name before the place belongs to the pattern, not to a folder.
    start, prefix = root / before.rpartition("/")[0], before.rpartition("/")[2]
    names = (path.relative_to(start).as_posix() for path in start.rglob("*") if path.is_file())
    return sorted(
        name.removeprefix(prefix).removesuffix(after)
        for name in names
        if name.startswith(prefix) and name.endswith(after) and "/." not in f"/{name}"
    )


def _validation_ids(config: DataConfig) -> list[str]:
    """From `splits/val.txt`, else from VOC's own list, else Cityscapes' folder `val`."""
    spec, root = spec_of(config), data_root(config)
    if (root / "splits/val.txt").is_file():
        path = root / "splits/val.txt"
        return parse_lines(spec, read_lines(path), where=str(path))
    if (root / "ImageSets/Segmentation/val.txt").is_file():
        return read_lines(root / "ImageSets/Segmentation/val.txt")
    ids = [name for name in masked_ids(spec, root) if name.startswith("val/")]
    if not ids:
        more = ", or bring the published one with `splits fetch`"
        if config.dataset == "folder":
            more = f", or hold some images out: python -m datasets prepare folder root={root}"
        raise DataError(
            f"{root} has no validation list. Put one at {root / 'splits/val.txt'} (lines like "
            f"{line_of(spec, 'ID')!r}){more}."
        )
    return ids


def _training_ids(config: DataConfig, validation: Sequence[str]) -> list[str]:
    kept_out = set(validation)
    others = () if config.dataset == "folder" else ("val/", "test/")
    return [
        name
        for name in masked_ids(spec_of(config), data_root(config))
        if name not in kept_out and not name.startswith(others)
    ]


def _check_name(config: DataConfig, name: str) -> None:
    if name in published_splits(config.dataset) or name in DRAWN_SPLITS:
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
