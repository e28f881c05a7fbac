import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.config import DataConfig
from datasets.dataset import open_dataset
from datasets.errors import DataError
from datasets.known.list_file import line_of
from datasets.known.registry import KNOWN
from datasets.location import locate
from datasets.manifest import FILE_NAME, data_fingerprint, read_manifest
from datasets.prepare.verify import defects

VOC = KNOWN["voc"].spec


@pytest.fixture
def voc(tmp_path, config, dataset) -> DataConfig:
    """The drawn scenes as if they were VOC: 4 labelled, 6 unlabelled, 3 for validation."""
    root = tmp_path / "voc"
    shutil.copytree(config.root, root, ignore=shutil.ignore_patterns(FILE_NAME))
    lists = {"tiny/labeled": range(4), "tiny/unlabeled": range(4, 10), "val": range(10, 13)}
    for name, indices in lists.items():
        path = root / f"splits/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line_of(VOC, f'scene_{index:05d}')}\n" for index in indices))
    return DataConfig(dataset="voc", root=str(root), split="tiny", crop=32)


def test_a_voc_tree_opens_with_its_lists(voc) -> None:
    dataset = open_dataset(voc)

    assert dataset.num_classes == 21
    assert len(dataset.split.unlabelled) == 6
    assert dataset.tree.pair("scene_00000")[0].size == (56, 40)


def test_an_own_folder_is_opened_with_one_look_at_its_description(voc) -> None:
    root = Path(voc.root)
    description = root / "dataset.yaml"
    description.write_text(
        "classes: [background, a, b, c, d]\n"
        "images: JPEGImages/{id}.jpg\nmasks: SegmentationClass/{id}.png\n"
    )
    opened: list[str] = []
    is_over = False

    def note(event: str, given: tuple[object, ...]) -> None:
        if event == "open" and not is_over:  # a hook cannot be removed
            opened.append(str(given[0]))

    sys.addaudithook(note)
    open_dataset(replace(voc, dataset="folder"))
    is_over = True

    assert opened.count(str(description)) == 1


def test_without_a_manifest_the_fingerprint_is_what_verify_would_record(voc) -> None:
    before = open_dataset(voc).fingerprint

    assert list(defects(locate(voc))) == []
    manifest = read_manifest(Path(voc.root))
    assert manifest is not None
    assert before == data_fingerprint(manifest.files) == open_dataset(voc).fingerprint


def test_a_verified_tree_has_a_fingerprint_of_its_bytes(voc) -> None:
    assert list(defects(locate(voc))) == []
    first = open_dataset(voc).fingerprint
    image = open_dataset(voc).tree.image_path("scene_00005")

    image.write_bytes(image.read_bytes() + b" ")

    assert len(first) == 64
    assert open_dataset(voc).fingerprint != first
    assert [one for one in defects(locate(voc)) if "scene_00005.jpg has changed" in one.text]
    (Path(voc.root) / FILE_NAME).unlink()
    assert list(defects(locate(voc))) == []
    assert open_dataset(voc).fingerprint != first


def test_the_fingerprint_does_not_depend_on_the_place(dataset, own_config) -> None:
    assert open_dataset(own_config).fingerprint == dataset.fingerprint


def test_the_fingerprint_does_not_depend_on_the_order_of_the_manifest() -> None:
    one, two = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}

    assert data_fingerprint(one) == data_fingerprint(two) != data_fingerprint({"a": "2", "b": "1"})


@pytest.mark.parametrize(
    "file", ["JPEGImages/scene_00004.jpg", "SegmentationClass/scene_00000.png"]
)
def test_a_missing_file_of_the_split_stops_the_opening(voc, file) -> None:
    (Path(voc.root) / file).unlink()

    with pytest.raises(DataError, match=rf"lacks 1 file of split 'tiny', the first is {file}"):
        open_dataset(voc)


def test_a_missing_mask_of_an_unlabelled_image_is_no_defect(voc) -> None:
    (Path(voc.root) / "SegmentationClass/scene_00009.png").unlink()

    assert open_dataset(voc).split.name == "tiny"
    assert list(defects(locate(voc))) == []


def test_an_empty_root_says_which_list_to_bring(voc, tmp_path) -> None:
    with pytest.raises(DataError, match=r"p2_92/labeled\.txt is missing"):
        open_dataset(replace(voc, root=str(tmp_path / "none"), split="p2_92"))


def test_a_broken_manifest_is_named(voc) -> None:
    (Path(voc.root) / FILE_NAME).write_text("{")

    with pytest.raises(DataError, match=r"manifest\.json cannot be read.*Remove it"):
        open_dataset(voc)
