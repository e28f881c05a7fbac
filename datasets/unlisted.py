"""Pictures in a folder of one's own that no run would ever see: its owner should hear of them."""

from pathlib import Path

from datasets.catalog import DatasetSpec
from datasets.own_lists import SUFFIXES, image_ids, masked_ids
from datasets.splits import Split


def unlisted(spec: DatasetSpec, root: Path, split: Split) -> list[str]:
    """One line for each reason why pictures are left out.

    Args:
        spec: of the folder.
        root: of the folder.
        split: that all images should be in.
    """
    images, notes = image_ids(spec, root), []
    listed = {*split.labelled, *split.unlabelled, *split.validation}
    late = [name for name in images if name not in listed]
    if late:
        notes.append(
            f"note: {len(late)} images are in no list of the split {split.name!r}, the first is "
            f"{spec.image_file(late[0])}; remove {root / 'splits' / split.name} and prepare again "
            "to take them in"
        )
    before = spec.image_pattern.split("{id}")[0]
    folder = before.rpartition("/")[0]
    known = {spec.image_file(name) for name in images}
    known |= {spec.mask_file(name) for name in masked_ids(spec, root)}
    others = sorted(_pictures(root, root / folder) - known)
    if others:
        notes.append(
            f"note: {len(others)} pictures are not used, since no pattern of dataset.yaml takes "
            f"them; the first is {others[0]}. Rename them, or write `images: {before}{{id}}`, "
            "which takes all of .jpg, .png, ..."
        )
    return notes


def _pictures(root: Path, folder: Path) -> set[str]:
    """Paths below the root of what looks like pictures in a folder."""
    paths = (path.relative_to(root).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path for path in paths if path.lower().endswith(SUFFIXES) and "/." not in f"/{path}"}
