"""Reading every file of a tree, to find every defect before a run does."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.catalog import DatasetSpec, data_root, spec_of
from datasets.config import DataConfig, DrawnConfig
from datasets.errors import DataError
from datasets.lists import list_defects
from datasets.manifest import FILE_NAME, Manifest, file_sha256, read_manifest, write_manifest
from datasets.opening import missing_files
from datasets.splits import drawn_ids, load_split, split_names
from datasets.tree import ImageTree, tree_of


@dataclass(frozen=True)
class Needs:
    """Ids whose image must be there, and those whose mask must be there too."""

    images: tuple[str, ...]
    masks: frozenset[str]


def defects(config: DataConfig) -> Iterator[str]:
    """Every defect of the tree, one text each; none when all is well.

    Reads all images of all lists at the root and every mask that is there, and compares them with
    the manifest where there is one. A sound tree without manifest gets one: from then on its
    sha256 is the identity of the data in every result.

    Raises:
        DataError: nothing can be said, because there is no tree or no list.
    """
    config = as_drawn(config)
    spec, root = spec_of(config), data_root(config)
    tree, needs = tree_of(spec, root), _needs(config)
    manifest = read_manifest(root)
    found, files = 0, {}
    for name in needs.images:
        for text in _pair_defects(tree, name, needs):
            found += 1
            yield text
        files.update(_hashes(tree, name))
    if manifest is not None:
        yield from _changes(root, manifest, files)
    elif not found:
        write_manifest(root, Manifest(spec.name, files))


def as_drawn(config: DataConfig) -> DataConfig:
    """The configuration with the scenes described as the manifest at its root describes them.

    Raises:
        DataError: no drawn scenes are there.
    """
    if config.dataset != "synthetic":
        return config
    root = data_root(config)
    manifest = read_manifest(root)
    if manifest is None or manifest.drawing is None:
        raise DataError(
            f"{root} holds no drawn scenes. Draw them with `python -m datasets draw root={root}`, "
            "or give the right folder with root=DIR."
        )
    drawing = {name: value for name, value in manifest.drawing.items() if name != "version"}
    return replace(config, root=str(root), drawn=DrawnConfig(**drawing))


def missing_parts(config: DataConfig) -> list[str]:
    """What a real dataset still lacks at its root, by names alone; empty when it is complete."""
    present = _present_splits(config)
    if not present:
        return list_defects(config)
    tree, parts = tree_of(spec_of(config), data_root(config)), []
    for name in present:
        absent = missing_files(tree, load_split(replace(config, split=name)))
        if absent:
            parts.append(f"{len(absent)} files of split {name}, the first is {absent[0]}")
    return parts


def guidance(spec: DatasetSpec, root: Path) -> str:
    """Which files of a real dataset go where."""
    return _GUIDANCE[spec.name].format(root=root)


def _needs(config: DataConfig) -> Needs:
    """All ids of all lists at the root; masks of those that some list labels."""
    if config.dataset == "synthetic":
        train, validation = drawn_ids(config)
        return Needs((*train, *validation), frozenset((*train, *validation)))
    images: set[str] = set()
    masks: set[str] = set()
    folder = data_root(config) / "splits"
    for name in _present_splits(config):
        split = load_split(replace(config, split=name))
        images.update(split.labelled, split.unlabelled, split.validation)
        masks.update(split.labelled, split.validation)
    if not images:
        raise DataError(
            f"{folder} holds no lists, so nothing says which files are needed. Bring them with "
            f"`python -m datasets splits fetch dataset={config.dataset} root={data_root(config)}`."
        )
    return Needs(tuple(sorted(images)), frozenset(masks))


def _present_splits(config: DataConfig) -> list[str]:
    folder = data_root(config) / "splits"
    return [name for name in split_names(config) if (folder / name).is_dir()]


def _pair_defects(tree: ImageTree, name: str, needs: Needs) -> Iterator[str]:
    has_mask = name in needs.masks or tree.mask_path(name).exists()
    readers = [tree.image, tree.mask] if has_mask else [tree.image]
    sizes = set()
    for read in readers:
        try:
            sizes.add(read(name).size)
        except DataError as error:
            yield str(error)
    if len(sizes) > 1:
        try:
            tree.pair(name)
        except DataError as error:
            yield str(error)


def _hashes(tree: ImageTree, name: str) -> dict[str, str]:
    paths = (tree.image_path(name), tree.mask_path(name))
    return {
        path.relative_to(tree.root).as_posix(): file_sha256(path)
        for path in paths
        if path.is_file()
    }


def _changes(root: Path, manifest: Manifest, files: dict[str, str]) -> Iterator[str]:
    """Where the files differ from the manifest."""
    accept = f"remove {root / FILE_NAME} and verify again to accept the new data"
    if manifest.drawing is not None:
        accept = f"remove {root}, and the scenes are drawn anew"
    for path, digest in sorted(manifest.files.items()):
        now = files.get(path) or (file_sha256(root / path) if (root / path).is_file() else "")
        if now != digest:
            state = "has changed" if now else "is gone"
            yield (
                f"{root / path} {state} since {FILE_NAME} was written. Bring the file back, or "
                f"{accept}."
            )


_GUIDANCE = {
    "voc": """PASCAL VOC 2012 with the masks of SBD ("trainaug", 10582 training images) goes here:
  {root}/JPEGImages/ID.jpg            17125 photographs of VOC2012 (VOCtrainval_11-May-2012.tar)
  {root}/SegmentationClass/ID.png     masks of class indices, SBD's and VOC's own together:
                                      SegmentationClassAug of the UniMatch repository's README
  {root}/splits/...
      python -m datasets splits fetch dataset=voc root={root}""",
    "cityscapes": """Cityscapes goes here, unpacked from the site's two archives:
  {root}/leftImg8bit/train/CITY/ID_leftImg8bit.png         leftImg8bit_trainvaltest.zip
  {root}/gtFine/train/CITY/ID_gtFine_labelTrainIds.png     gtFine_trainvaltest.zip, after
                                      csCreateTrainIdLabelImgs of `cityscapesscripts`
  and the same for val/
  {root}/splits/...
      python -m datasets splits fetch dataset=cityscapes root={root}""",
}
