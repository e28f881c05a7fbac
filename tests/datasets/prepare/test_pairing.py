"""What `prepare` says about a user's own folder: once for all files of which the same is true."""

import shlex
from pathlib import Path

import pytest

from datasets.__main__ import VERB_HELP, first_run, main
from datasets.cli import Arguments
from datasets.config import DataConfig
from datasets.location import HOME_VARIABLE, locate
from tests.support import dataset_trees as trees
from tests.support.strategies import labels


def folder(
    root: Path, images: str, masks: str, *, files: tuple[str, ...], num_masks: int = 9
) -> Path:
    """Images of these names, the first ones with masks, and a description with two patterns."""
    trees.put(root / "dataset.yaml", f"classes: [a, b]\nimages: {images}\nmasks: {masks}\n")
    for index, file in enumerate(files):
        trees.put(root / "images" / file, trees.jpeg(index))
        if index < num_masks:
            mask = trees.grey_png(labels(index, trees.SIZE, 2))
            trees.put(root / "masks" / f"{file.partition('.')[0]}.png", mask)
    return root


def prepared(root: Path, *words: str) -> int:
    return main(["prepare", "folder", f"root={root}", *words])


MIXED = tuple(f"my cell {index}.{('jpg', 'png')[index % 2]}" for index in range(16))


@pytest.mark.parametrize(
    ("images", "count"), [("images/{id}.jpg", 4), ("images/{id}", 9), ("images/{id}.JPG", 9)]
)
def test_mixed_endings_are_said_once_with_lines_that_cure_them(
    tmp_path, capsys, images, count
) -> None:
    root = folder(tmp_path / "d", images, "masks/{id}.png", files=MIXED)
    if "JPG" in images:
        (root / "images/my cell 0.jpg").rename(
            root / "images/my cell 14.JPG"
        )  # some image is taken

    assert prepared(root) == 2
    out = capsys.readouterr().out
    cure = "Write `images: images/{id}` and `masks: masks/{stem}.png` there"
    assert out.count(cure) == 1
    assert len(out.splitlines()) <= 3

    folder(root, "images/{id}", "masks/{stem}.png", files=MIXED)
    assert prepared(root) == 0


def test_the_cure_is_not_offered_where_it_would_not_hold(tmp_path, capsys) -> None:
    files = ("a_photo.jpg", "b_photo.png", "c_photo.jpg")
    root = folder(tmp_path / "d", "images/{id}_photo.jpg", "masks/{id}_photo.png", files=files)

    assert prepared(root) == 2

    out = capsys.readouterr().out
    assert "rename or convert it to b_photo.jpg" in out
    assert "{stem}" not in out


def test_masks_beside_their_images_are_not_taken_for_images(tmp_path, capsys) -> None:
    root = folder(tmp_path / "d", "images/{id}.jpg", "images/{id}.png", files=("a.jpg", "b.jpg"))
    trees.put(root / "images/c.png", trees.grey_png(labels(0, trees.SIZE, 2)))

    assert prepared(root) == 2
    assert "images/c.png has no image images/c.jpg. c.png lies there" in capsys.readouterr().out


def test_a_mask_without_any_image_is_named_with_stem_too(tmp_path, capsys) -> None:
    root = folder(tmp_path / "d", "images/{id}", "masks/{stem}.png", files=MIXED)
    for index in range(8):
        (root / "images" / MIXED[index]).unlink()

    assert prepared(root) == 2

    lines = capsys.readouterr().out.splitlines()
    assert "masks/my cell 0.png has no image images/my cell 0. Put it there" in lines[0]
    assert lines[1:] == [
        "  The same of 7 other files: masks/my cell 1.png, masks/my cell 2.png, masks/my cell "
        "3.png, masks/my cell 4.png and 3 more.",
        "8 defects",
    ]


def test_pictures_that_lie_there_are_named_where_no_image_is(tmp_path, capsys) -> None:
    root = folder(tmp_path / "d", "images/{id}.tif", "masks/{id}.png", files=MIXED[:2])

    assert prepared(root) == 2

    error = capsys.readouterr().err
    assert "has no image images/*.tif. 2 other pictures: images/my cell 0.jpg, " in error
    assert "`images: images/{id}` and `masks: masks/{stem}.png` take all of .jpg" in error


def test_changed_files_are_said_in_two_lines_and_verify_names_all(tmp_path, capsys) -> None:
    root = folder(tmp_path / "d", "images/{id}", "masks/{stem}.png", files=MIXED)
    assert prepared(root) == 0
    for index in range(9):
        path = root / f"masks/my cell {index}.png"
        trees.put(path, trees.grey_png(labels(index + 20, trees.SIZE, 2)))
    capsys.readouterr()

    assert prepared(root) == 2
    changed, same, end = capsys.readouterr().out.splitlines()[-3:]
    assert "my cell 0.png has changed since manifest.json was written" in changed
    assert same.endswith("masks/my cell 4.png and 4 more.")
    assert end == "9 defects"
    assert main(["verify", "folder", f"root={root}"]) == 2
    assert "masks/my cell 7.png, masks/my cell 8.png." in capsys.readouterr().out


def test_a_lost_validation_list_comes_again_or_is_refused_with_what_to_do(tmp_path, capsys) -> None:
    root = folder(tmp_path / "d", "images/{id}", "masks/{stem}.png", files=MIXED)
    assert prepared(root, "val=n3") == 0
    held = (root / "splits/val.txt").read_text()
    (root / "splits/val.txt").unlink()
    capsys.readouterr()

    assert main(["verify", "folder", f"root={root}"]) == 2
    assert "`python -m datasets prepare dataset=folder" in capsys.readouterr().err
    assert prepared(root, "val=n5") == 2
    assert "or say val= and seed= as they were then, or remove" in capsys.readouterr().err
    assert not (root / "splits/val.txt").exists()
    assert prepared(root, "val=n3") == 0
    assert (root / "splits/val.txt").read_text() == held


@pytest.mark.parametrize(
    ("num_images", "more"),
    [
        (16, ""),
        (12, " optim.batch=3"),
        (10, " method=supervised_star method.match_iters=false loss=none"),
    ],
)
def test_the_command_at_the_end_works_with_what_is_here(
    tmp_path, capsys, monkeypatch, num_images, more
) -> None:
    root = folder(tmp_path / "d", "images/{id}", "masks/{stem}.png", files=MIXED[:num_images])
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    assert prepared(root) == 0

    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.startswith("next: python -m trainer weights fetch efficientnet_lite0 ")
    assert second.startswith("then: python -m trainer recipe=folder model=efficientnet_lite0 ")
    assert second.endswith(f"data.root={root}{more}")
    trees.put(tmp_path / "home/weights/resnet50.pth", b"")
    location = locate(DataConfig(dataset="folder", root=str(root)))
    assert first_run(location).startswith("ready: python -m trainer recipe=folder model=resnet50")


def test_a_folder_that_is_misspelt_or_given_without_root_is_named(
    tmp_path, capsys, monkeypatch
) -> None:
    folder(tmp_path / "my_data", "images/{id}", "masks/{stem}.png", files=MIXED[:2])
    monkeypatch.chdir(tmp_path)

    for line, text in (
        ("prepare folder root=my_dta", "Did you mean my_data?"),
        ("prepare folder my_data", "Did you mean root=my_data?"),
        ("prepare my_data", "python -m datasets prepare folder root=my_data"),
        ("splits make folder root=my_data", "splits make needs labelled=1of16"),
    ):
        assert main(line.split()) == 2
        assert text in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERB_HELP)
def test_examples_of_the_help_are_words_that_the_verb_takes(verb: str) -> None:
    entry = VERB_HELP[verb]
    said = " ".join([*(form for form, _ in entry.forms), *(name for name, _ in entry.settings)])

    for example in entry.examples:
        given = Arguments.of(shlex.split(example)[1:])
        assert [key for key in given.settings if key not in said] == []


def test_prepare_without_a_name_says_what_can_be_prepared(capsys) -> None:
    assert main(["prepare"]) == 2

    error = capsys.readouterr().err
    assert "prepare needs a dataset. Known: folder, synthetic, earth, voc, cityscapes." in error
    assert "prepare folder root=DIR [val=1of5] [seed=N]: prove your own folder" in error
