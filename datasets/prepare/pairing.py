"""Which images and masks of a user's own folder go together, and what to do where they do not."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from datasets.files import files_below
from datasets.images.tree import nearby
from datasets.known.folder import DESCRIPTION_FILE
from datasets.prepare.defects import SHOWN, Defect
from datasets.spec import DatasetSpec
from datasets.splits.generate import SUFFIXES, all_mask_files
from datasets.wording import listed, quantity


def image_folder(spec: DatasetSpec, root: Path) -> Path:
    """The folder that holds all images, in itself or in folders of it."""
    return root / spec.image_pattern.split("{id}")[0].rpartition("/")[0]


def picture_files(root: Path, folder: Path) -> set[str]:
    """Paths below the root of what looks like images in a folder."""
    below = folder.relative_to(root)
    paths = ((below / path).as_posix() for path in files_below(folder))
    return {path for path in paths if path.lower().endswith(SUFFIXES) and "/." not in f"/{path}"}


def any_ending(spec: DatasetSpec) -> str:
    """The lines of dataset.yaml that take images of any ending; empty where none do.

    Args:
        spec: of the folder; its patterns may say more of a name than the ending.
    """
    before, after = spec.image_pattern.split("{id}")
    if after.lower() not in ("", *SUFFIXES):
        return ""
    masks = spec.mask_pattern.replace("{id}", "{stem}")
    return f"`images: {before}{{id}}` and `masks: {masks}`"


def pairing_defects(spec: DatasetSpec, root: Path, images: Sequence[str]) -> Iterator[Defect]:
    """Masks without an image, and masks that several images claim.

    Args:
        spec: of the folder.
        root: that folder.
        images: ids of all images.
    """
    claims: dict[str, list[str]] = {}
    for name in images:
        claims.setdefault(spec.mask_file(name), []).append(spec.image_file(name))
    masks = all_mask_files(spec, root)
    pictures = picture_files(root, image_folder(spec, root)) - set(masks)
    lost = {mask: _image_of(spec, mask) for mask in masks if mask not in claims}
    yield from _without_image(spec, root, lost, pictures)
    for mask, claimed in claims.items():
        if len(claimed) > 1 and (root / mask).is_file():
            text = f"{root / mask} would be the mask of {' and '.join(claimed)}."
            yield Defect(f"{text} Rename or remove all but one.", mask, "shared")


def _without_image(
    spec: DatasetSpec, root: Path, lost: Mapping[str, str], pictures: Collection[str]
) -> Iterator[Defect]:
    """Masks whose image only ends otherwise, in one text; then each of the others.

    Args:
        spec: of the folder.
        root: that folder.
        lost: the image that a mask should have, by mask.
        pictures: that may be images, whatever their ending.
    """
    ending, cure = spec.image_pattern.split("{id}")[1], any_ending(spec)
    by_stem = {path.rpartition(".")[0]: path for path in sorted(pictures)}
    otherwise = {
        mask: by_stem[stem]
        for mask, image in lost.items()
        if cure and (stem := image.removesuffix(ending)) in by_stem
    }
    if otherwise:
        yield Defect(
            f"{quantity(len(otherwise), 'mask')} of {root} would belong to images that the "
            f"patterns of {DESCRIPTION_FILE} do not take: {listed(otherwise.values(), SHOWN)}. "
            f"Write {cure} there, which takes all of .jpg, .png, ...; {{id}} is then the whole "
            "name of an image, and {stem} the name without its ending."
        )
    for mask in [mask for mask in lost if mask not in otherwise]:
        hint = nearby(root / lost[mask])
        cure = hint.rstrip() or "Put it there, or remove the mask."
        text = f"{root / mask} has no image {lost[mask]}. {cure}"
        yield Defect(text, mask, "" if hint else "no image")


def _image_of(spec: DatasetSpec, mask: str) -> str:
    """The image that a mask should have; with {stem} its name without the ending."""
    variable = "{stem}" if "{stem}" in spec.mask_pattern else "{id}"
    before, after = spec.mask_pattern.split(variable)
    return spec.image_file(mask.removeprefix(before).removesuffix(after))
