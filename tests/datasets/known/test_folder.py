"""Somebody's own images: described in a small file, proved, split, opened."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from datasets.__main__ import main
from datasets.config import DataConfig
from datasets.dataset import open_dataset
from datasets.errors import DataError
from tests.support import dataset_trees as trees
from tests.support.strategies import labels

DESCRIPTION = {
    "classes": ["background", "cell", "wall"],
    "images": "photos/{id}.jpg",
    "masks": "truth/{id}_mask.png",
}


def described(root: Path, **changes: object) -> Path:
    return trees.put(root / "dataset.yaml", yaml.safe_dump({**DESCRIPTION, **changes}))


@pytest.fixture
def root(tmp_path) -> Path:
    """Ten images with masks in two folders, eight without."""
    root = tmp_path / "mine"
    for index in range(18):
        name = f"{'ab'[index % 2]}/i{index:02d}"
        trees.put(root / f"photos/{name}.jpg", trees.jpeg(index))
        if index < 10:
            mask = trees.grey_png(labels(index, trees.SIZE, 3))
            trees.put(root / f"truth/{name}_mask.png", mask)
    described(root)
    return root


def config(root: Path, split: str = "all") -> DataConfig:
    return DataConfig(dataset="folder", root=str(root), split=split, crop=16)


def test_one_command_proves_the_folder_and_splits_it(root, capsys) -> None:
    assert main(["prepare", "folder", f"root={root}"]) == 0

    out = capsys.readouterr().out
    assert "3 classes, 8 labelled images, 8 unlabelled, 2 for validation" in out
    assert f"then: python -m trainer recipe=folder model=efficientnet_lite0 data.root={root}" in out
    dataset = open_dataset(config(root))
    assert (dataset.num_classes, dataset.spec.class_names[1]) == (3, "cell")
    assert len(dataset.fingerprint) == 64
    assert not set(dataset.split.validation) & set(dataset.split.labelled)
    assert np.array_equal(dataset.tree.mask("a/i00"), labels(0, trees.SIZE, 3))


def test_prepared_again_nothing_changes(root) -> None:
    main(["prepare", "folder", f"root={root}"])
    before = trees.snapshot(root)

    assert main(["prepare", "folder", f"root={root}"]) == 0
    assert trees.snapshot(root) == before


def test_only_lists_and_the_manifest_are_added(root) -> None:
    before = trees.snapshot(root)

    main(["prepare", "folder", f"root={root}"])

    after = trees.snapshot(root)
    added = {str(Path(name).relative_to(root)) for name in set(after) - set(before)}
    assert added == {
        *("manifest.json", "splits/val.txt"),
        *("splits/all/labeled.txt", "splits/all/unlabeled.txt"),
    }
    assert {name: after[name] for name in before} == before


def test_a_part_of_the_masks_can_be_labelled_and_the_rest_joins_the_unlabelled(root) -> None:
    main(["prepare", "folder", f"root={root}"])
    line = ["splits", "make", "dataset=folder", f"root={root}"]

    assert main([*line, "labelled=n3", "seed=1"]) == 0
    assert main([*line, "--fraction", "1/4", "--seed", "1"]) == 0

    three, quarter = (trees.split_of(config(root, f"seed1_{part}")) for part in ("n3", "1of4"))
    assert (len(three.labelled), len(three.unlabelled), len(three.validation)) == (3, 13, 2)
    assert set(quarter.labelled) < set(three.labelled)
    assert three.validation == trees.split_of(config(root)).validation


def test_a_stratified_split_has_the_rare_class(root) -> None:
    for index in range(10):  # class 2 is in one mask only
        name = f"{'ab'[index % 2]}/i{index:02d}"
        mask = labels(index, trees.SIZE, 2)
        if index == 4:
            mask.putpixel((3, 3), 2)
        trees.put(root / f"truth/{name}_mask.png", trees.grey_png(mask))
    trees.put(root / "splits/val.txt", "photos/b/i09.jpg truth/b/i09_mask.png\n")
    line = ["splits", "make", "dataset=folder", f"root={root}", "labelled=n2", "--stratified"]

    for seed in range(4):
        assert main([*line, f"seed={seed}"]) == 0
        split = trees.split_of(config(root, f"seed{seed}_n2_stratified"))
        assert "a/i04" in split.labelled
        assert len(split.labelled) == 2


def test_values_are_mapped_to_classes_and_255_may_be_one(root) -> None:
    described(root, classes={0: "background", 128: "cell", 255: "wall"}, ignore=7)
    values = np.array([0, 128, 255, 7], np.uint8)
    for path in root.rglob("*_mask.png"):
        index = np.asarray(labels(3, trees.SIZE, 4)) % 4
        trees.put(path, trees.grey_png(trees.Image.fromarray(values[index])))

    assert main(["prepare", "folder", f"root={root}"]) == 0

    mask = np.asarray(open_dataset(config(root)).tree.mask("a/i00"))
    assert np.array_equal(mask, np.array([0, 1, 2, 255])[index])


def test_any_suffix_goes_with_stem(tmp_path) -> None:
    described(tmp_path, images="x/{id}", masks="y/{stem}.png", classes=["a", "b"])
    for index, suffix in enumerate(("jpg", "png", "jpeg", "JPG")):
        trees.put(tmp_path / f"x/i{index}.{suffix}", trees.jpeg(index))
        trees.put(tmp_path / f"y/i{index}.png", trees.grey_png(labels(index, trees.SIZE, 2)))
    trees.put(tmp_path / "x/notes.txt", "no image")
    trees.put(tmp_path / "x/more.png", trees.jpeg(9))

    assert main(["prepare", "folder", f"root={tmp_path}"]) == 0

    split = trees.split_of(config(tmp_path))
    assert {*split.labelled, *split.validation} == {"i0.jpg", "i1.png", "i2.jpeg", "i3.JPG"}
    assert split.unlabelled == ("more.png",)
    assert open_dataset(config(tmp_path)).tree.pair("i3.JPG")[1].size == trees.SIZE


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"colours": 3}, "'colours' is unknown; known: classes, ignore, images, masks"),
        ({"classes": ["one"]}, "of at least two"),
        ({"classes": "cell"}, "of at least two"),
        ({"classes": ["a", "a"]}, "two classes have the same name"),
        ({"classes": ["a", None]}, "class name None is no text"),
        ({"classes": {0: "a", 256: "b"}}, "class value 256 is no number from 0 to 255"),
        ({"classes": {0: "a", 255: "b"}}, "255 is both ignored and a class"),
        ({"images": "photos/*.jpg"}, "images is a path below this folder with {id} once"),
        ({"masks": "/truth/{id}.png"}, "below this folder; link others in"),
        ({"masks": "../{id}.png"}, "masks is a path below this folder"),
        ({"ignore": "none"}, "ignore is 'none', no number"),
    ],
)
def test_a_wrong_description_says_what_and_shows_a_right_one(root, changes, text) -> None:
    described(root, **changes)

    with pytest.raises(DataError) as error:
        open_dataset(config(root))
    assert text in str(error.value)
    assert "classes: [background, cell]" in str(error.value)


@pytest.mark.parametrize("content", [None, "classes: [", "- a\n- b", b"\xff\xfe"])
def test_no_description_or_no_yaml_shows_a_right_one(root, content, capsys) -> None:
    path = root / "dataset.yaml"
    path.unlink()
    if content:
        trees.put(path, content)

    assert main(["prepare", "folder", f"root={root}"]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "masks: masks/{id}.png" in error


def test_a_mask_without_image_is_named(root, capsys) -> None:
    (root / "photos/a/i02.jpg").unlink()

    assert main(["prepare", "folder", f"root={root}"]) == 2
    assert "truth/a/i02_mask.png has no image photos/a/i02.jpg" in capsys.readouterr().out
    assert not (root / "splits").exists()


def test_without_masks_or_images_the_description_is_doubted(root, capsys) -> None:
    shutil.move(root / "truth", root / "elsewhere")

    assert main(["prepare", "folder", f"root={root}"]) == 2
    assert "has no mask truth/*_mask.png" in capsys.readouterr().err


def test_a_validation_part_that_leaves_nothing_is_refused(root, capsys) -> None:
    assert main(["prepare", "folder", f"root={root}", "val=n10"]) == 2
    assert "would hold out 10 of them" in capsys.readouterr().err


def test_own_lists_are_proved(root, capsys) -> None:
    main(["prepare", "folder", f"root={root}"])
    assert main(["splits", "verify", "dataset=folder", f"root={root}"]) == 0
    labelled = root / "splits/all/labeled.txt"
    labelled.write_text(labelled.read_text() + (root / "splits/val.txt").read_text())

    assert main(["splits", "verify", "dataset=folder", f"root={root}"]) == 2
    assert "both labelled and validation" in capsys.readouterr().out


def test_pictures_that_no_pattern_takes_are_told_of(root, capsys) -> None:
    trees.put(root / "photos/a/new.JPG", trees.jpeg(3))
    trees.put(root / "photos/b/other.jpeg", trees.jpeg(4))

    assert main(["prepare", "folder", f"root={root}"]) == 0

    out = capsys.readouterr().out
    assert "no pattern of dataset.yaml takes 2 pictures: photos/a/new.JPG, photos/b/" in out
    assert "write `images: photos/{id}` and `masks: truth/{stem}_mask.png`, which takes all" in out


def test_images_that_came_after_the_lists_are_told_of(root, capsys) -> None:
    main(["prepare", "folder", f"root={root}"])
    trees.put(root / "photos/a/later.jpg", trees.jpeg(3))
    capsys.readouterr()

    assert main(["prepare", "folder", f"root={root}"]) == 0

    out = capsys.readouterr().out
    assert "no list of the split 'all' names 1 image, " in out
    assert f"the first is photos/a/later.jpg; remove {root / 'splits/all'}" in out


def test_masks_that_came_after_the_lists_are_told_of(root, capsys) -> None:
    main(["prepare", "folder", f"root={root}"])
    trees.put(root / "truth/a/i10_mask.png", trees.grey_png(labels(10, trees.SIZE, 3)))
    capsys.readouterr()

    assert main(["prepare", "folder", f"root={root}"]) == 0

    out = capsys.readouterr().out
    assert "the split 'all' takes 1 image with a mask as unlabelled" in out
    assert (
        f"the first is photos/a/i10.jpg; if the masks are new, remove {root / 'splits/all'}" in out
    )


def test_a_mask_whose_image_is_spelt_otherwise_says_so(root, capsys) -> None:
    (root / "photos/a/i00.jpg").rename(root / "photos/a/i00.JPG")

    assert main(["prepare", "folder", f"root={root}"]) == 2

    out = capsys.readouterr().out
    assert "1 mask of" in out
    assert "patterns of dataset.yaml do not take: photos/a/i00.JPG. Write `images: photos/" in out


def test_lists_that_are_not_there_are_not_verified(root, capsys) -> None:
    assert main(["splits", "verify", "dataset=folder", f"root={root}"]) == 2
    assert "there are no lists" in capsys.readouterr().out


def test_more_labels_than_masks_are_refused(root, capsys) -> None:
    main(["prepare", "folder", f"root={root}"])
    make = ["splits", "make", "dataset=folder", f"root={root}"]

    assert main([*make, "labelled=n9"]) == 2
    assert "n9 asks for 9 labelled images; there are 8 with masks" in capsys.readouterr().err
    assert main([*make, "labelled=n8"]) == 0


@pytest.mark.parametrize("part", ["5/2", "1/0", "half", ""])
def test_a_part_that_is_none_is_refused_by_what_was_typed(root, capsys, part: str) -> None:
    main(["prepare", "folder", f"root={root}"])

    assert main(["splits", "make", "dataset=folder", f"root={root}", f"fraction={part}"]) == 2

    assert f"{part.replace('1/', '1of')!r} is no part; write 1of16" in capsys.readouterr().err


def test_two_images_that_share_a_mask_are_told_apart_by_nobody(tmp_path, capsys) -> None:
    for name in ("p0.jpg", "p1.jpg", "p2.jpg", "p1.png"):
        trees.put(tmp_path / f"x/{name}", trees.jpeg(3))
    for index in range(3):
        trees.put(tmp_path / f"y/p{index}.png", trees.grey_png(labels(index, trees.SIZE, 3)))
    described(tmp_path, images="x/{id}", masks="y/{stem}.png")

    assert main(["prepare", "folder", f"root={tmp_path}"]) == 2

    out = capsys.readouterr().out
    assert "y/p1.png would be the mask of x/p1.jpg and x/p1.png" in out
    assert not (tmp_path / "splits").exists()


def masks_without(root: Path, names: set[str], value: int) -> None:
    """Masks of classes 0 and 1; those of some ids hold one value only."""
    for path in root.rglob("*_mask.png"):
        mask = labels(3, trees.SIZE, 2)
        if path.name.removesuffix("_mask.png") in names:
            mask = trees.Image.new("L", trees.SIZE, value)
        trees.put(path, trees.grey_png(mask))


def test_a_class_that_no_validation_mask_shows_is_named(root, capsys) -> None:
    main(["prepare", "folder", f"root={root}"])
    assert "no validation mask shows" not in capsys.readouterr().out
    (root / "manifest.json").unlink()
    masks_without(root, set(), 0)

    assert main(["prepare", "folder", f"root={root}"]) == 0

    assert "note: no validation mask shows wall: counted as 0" in capsys.readouterr().out


def test_a_validation_image_that_is_trained_on_under_another_name_is_named(root, capsys) -> None:
    main(["prepare", "folder", f"root={root}"])
    assert "also trained on" not in capsys.readouterr().out
    dataset = open_dataset(config(root))
    names = dataset.split.labelled[0], dataset.split.validation[0]
    paths = [dataset.tree.image_path(name) for name in names]
    shutil.copy(*paths)
    (root / "manifest.json").unlink()

    assert main(["verify", "folder", f"root={root}"]) == 0

    said = capsys.readouterr().out
    other, own = (path.relative_to(root) for path in paths)
    assert f"as another file: 1 validation image, such as {own} with the bytes of {other}." in said


def test_validation_masks_of_ignored_pixels_only_are_refused(root, capsys) -> None:
    main(["prepare", "folder", f"root={root}"])
    held = {Path(name).name for name in open_dataset(config(root)).split.validation}
    (root / "manifest.json").unlink()
    masks_without(root, held, 255)

    assert main(["prepare", "folder", f"root={root}"]) == 2
    assert "every pixel of the 2 validation masks is ignored" in capsys.readouterr().out
    assert not (root / "manifest.json").exists()
    with pytest.raises(DataError, match="there is nothing to score"):
        open_dataset(config(root))


def test_one_pixel_that_counts_is_enough(root) -> None:
    main(["prepare", "folder", f"root={root}"])
    split = open_dataset(config(root)).split
    masks_without(root, {Path(name).name for name in split.validation}, 255)
    last = trees.Image.new("L", trees.SIZE, 255)
    last.putpixel((0, 0), 1)
    trees.put(root / f"truth/{split.validation[-1]}_mask.png", trees.grey_png(last))

    assert open_dataset(config(root)).split == split
