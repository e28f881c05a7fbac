import fcntl
import json
import shutil
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.__main__ import main
from datasets.config import DataConfig
from datasets.dataset import open_dataset
from datasets.images.tree import tree_of
from datasets.known.registry import KNOWN
from tests.support import dataset_trees as trees
from tests.support.process_groups import FORKSERVER
from tests.support.strategies import labels

VOC = KNOWN["voc"].spec


def prepare(dataset: str, *words: object) -> int:
    return main(["prepare", dataset, *map(str, words), "counts=any"])


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "root"


def test_voc_s_own_masks_go_before_sbd_s_and_validation_stays_out(tmp_path, root, capsys) -> None:
    assert prepare("voc", trees.devkit(tmp_path), trees.sbd(tmp_path), f"root={root}") == 0

    assert "4 training images (2 masks of SBD, 2 masks of VOC), 2 for validation" in (
        capsys.readouterr().out
    )
    tree = tree_of(VOC, root)
    for index, name in enumerate(("t0", "t1", "v0", "v1")):
        assert np.array_equal(tree.mask(name), labels(index, trees.SIZE, 21))
    for index, name in enumerate(("s0", "s1")):
        expected = np.roll(trees.sbd_segmentation(), index, axis=1)
        assert np.array_equal(tree.mask(name), expected)
    assert not tree.image_path("unlisted").exists()
    lists = root / "ImageSets/Segmentation"
    assert (lists / "trainaug.txt").read_text().split() == ["s0", "s1", "t0", "t1"]
    assert (lists / "val.txt").read_text().split() == ["v0", "v1"]


def test_the_order_of_the_sources_moves_nothing(tmp_path, root) -> None:
    sources = [trees.devkit(tmp_path), trees.sbd(tmp_path)]

    prepare("voc", *sources, f"root={root}")
    prepare("voc", *sources[::-1], f"root={root}2")

    assert (root / "manifest.json").read_text() == Path(f"{root}2/manifest.json").read_text()


def test_copied_files_are_the_bytes_of_the_source(tmp_path, root) -> None:
    devkit = trees.devkit(tmp_path) / "VOC2012"
    prepare("voc", devkit.parent, trees.sbd(tmp_path), f"root={root}")

    for path in ("JPEGImages/t1.jpg", "SegmentationClass/v1.png"):
        assert (root / path).read_bytes() == (devkit / path).read_bytes()


@pytest.mark.parametrize("how", ["copy", "link", "symlink"])
def test_sources_stay_as_they_are_and_give_one_fingerprint(tmp_path, root, how) -> None:
    sources = [trees.devkit(tmp_path / "a"), trees.sbd(tmp_path / "b")]
    before = trees.snapshot(tmp_path)

    assert prepare("voc", *sources, f"root={root}", f"how={how}") == 0

    assert {name: trees.snapshot(tmp_path)[name] for name in before} == before
    trees.voc_lists(root)
    dataset = open_dataset(DataConfig(dataset="voc", root=str(root), split="mine", crop=8))
    copied = tmp_path / "copied"
    prepare("voc", *sources, f"root={copied}")
    assert json.loads((copied / "manifest.json").read_text())["files"]
    assert (copied / "manifest.json").read_text() == (root / "manifest.json").read_text()
    assert len(dataset.fingerprint) == 64


def test_a_merged_tree_takes_its_validation_from_the_lists_at_the_root(tmp_path, root) -> None:
    source = trees.merged_voc(tmp_path / "unimatch")

    assert prepare("voc", source, f"root={root}") == 2  # nothing says what is for validation
    trees.voc_lists(root)

    assert prepare("voc", source, f"root={root}") == 0
    assert np.array_equal(tree_of(VOC, root).mask("s1"), labels(5, trees.SIZE, 21))
    assert main(["verify", "dataset=voc", f"root={root}"]) == 0


def test_merged_masks_beside_voc_s_own_fill_up_what_voc_lacks(tmp_path, root) -> None:
    devkit = trees.devkit(tmp_path)
    for index, name in enumerate(("t0", "s0", "s1")):
        mask = trees.grey_png(labels(index + 20, trees.SIZE, 21))
        trees.put(devkit / f"VOC2012/SegmentationClassAug/{name}.png", mask)

    assert prepare("voc", devkit, f"root={root}") == 0

    tree = tree_of(VOC, root)
    assert np.array_equal(tree.mask("t0"), labels(0, trees.SIZE, 21))
    assert np.array_equal(tree.mask("s0"), labels(21, trees.SIZE, 21))


def test_less_than_the_whole_dataset_is_refused_before_anything_is_written(
    tmp_path, root, capsys
) -> None:
    assert main(["prepare", "voc", str(trees.devkit(tmp_path)), f"root={root}"]) == 2

    error = capsys.readouterr().err
    assert "have 2 images for train, the dataset has 10582: give VOCdevkit" in error
    assert "take what is there with counts=any" in error
    assert not root.exists()


def test_label_ids_of_cityscapes_become_train_ids(tmp_path, root) -> None:
    assert prepare("cityscapes", trees.cityscapes(tmp_path / "city"), f"root={root}") == 0

    tree = tree_of(KNOWN["cityscapes"].spec, root)
    values = np.asarray(labels(0, trees.SIZE, 34)).copy()
    values[values == 255] = 0
    train_ids = np.asarray(tree.mask("train/jena/jena_0_0"))
    # road, sidewalk, car and bicycle, and three that count nowhere; labels.py of Cityscapes
    for label, train_id in {7: 0, 8: 1, 26: 13, 33: 18, 0: 255, 9: 255, 30: 255}.items():
        assert set(train_ids[values == label]) == {train_id}
    assert not (root / "leftImg8bit/test").exists()


def test_train_ids_that_are_there_are_taken_as_they_are(tmp_path, root) -> None:
    city = trees.cityscapes(tmp_path / "city", "labelTrainIds")

    assert prepare("cityscapes", city / "leftImg8bit", city / "gtFine", f"root={root}") == 0

    path = "gtFine/val/bonn/bonn_2_0_gtFine_labelTrainIds.png"
    assert (root / path).read_bytes() == (city / path).read_bytes()


def test_prepared_again_nothing_is_written(tmp_path, root, capsys) -> None:
    line = ("voc", trees.devkit(tmp_path), trees.sbd(tmp_path), f"root={root}")
    prepare(*line)
    before = trees.snapshot(root)
    capsys.readouterr()

    assert prepare(*line) == 0

    assert "0 pairs brought, 6 there already" in capsys.readouterr().out
    assert trees.snapshot(root) == before


@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_archives_are_taken_as_they_were_downloaded(tmp_path, root, kind) -> None:
    devkit, sbd = trees.devkit(tmp_path), trees.sbd(tmp_path)
    archives = [tmp_path / f"voc.{kind}", tmp_path / f"sbd.{kind}"]
    for folder, archive in zip((devkit, sbd), archives, strict=True):
        if kind == "zip":
            with zipfile.ZipFile(archive, "w") as zipped:
                for path in sorted(folder.rglob("*")):
                    zipped.write(path, path.relative_to(tmp_path))
        else:
            with tarfile.open(archive, "w:gz" if kind == "tgz" else "w") as tar:
                tar.add(folder, folder.name)

    assert prepare("voc", *archives, f"root={root}") == 0
    assert prepare("voc", devkit, sbd, f"root={root}2") == 0

    assert (root / "manifest.json").read_text() == Path(f"{root}2/manifest.json").read_text()
    assert not (root / ".unpacked").exists()


def test_an_archive_that_was_cut_short_is_named(tmp_path, root, capsys) -> None:
    archive = tmp_path / "voc.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(trees.devkit(tmp_path), "VOCdevkit")
    archive.write_bytes(archive.read_bytes()[:-2000])

    assert prepare("voc", archive, f"root={root}") == 2
    assert f"The archive {archive} is broken" in capsys.readouterr().err


def test_members_that_lead_out_of_the_archive_are_left_out(tmp_path, root) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("../../JPEGImages/evil.jpg", trees.jpeg(0))
        zipped.writestr("x/JPEGImages/good.jpg", trees.jpeg(0))
        zipped.writestr("x/SegmentationClass/good.png", trees.palette_png(0))
    trees.voc_lists(root)

    prepare("voc", archive, f"root={root}")

    assert not list(tmp_path.rglob("evil.jpg"))


def many(folder: Path, count: int) -> Path:
    """A merged tree of large pictures, so that bringing it takes a while."""
    for index in range(count):
        name = f"i{index:03d}"
        trees.put(folder / f"JPEGImages/{name}.jpg", trees.jpeg(index, (500, 375)))
        trees.put(folder / f"SegmentationClass/{name}.png", trees.palette_png(index, (500, 375)))
    trees.put(folder / "ImageSets/Segmentation/val.txt", "i000\n")
    trees.put(folder / "ImageSets/Segmentation/train.txt", "")
    return folder


def num_lines(journal: Path) -> int:
    return len(journal.read_bytes().splitlines()) if journal.exists() else 0


def test_killed_at_any_moment_it_goes_on_and_ends_alike(tmp_path, root) -> None:
    source = many(tmp_path / "source", 24)
    line = ["prepare", "voc", str(source), f"root={root}", "counts=any"]
    journal = root / ".prepare.jsonl"
    for count in (1, 7, 15):
        process = FORKSERVER.Process(target=main, args=(line,))
        process.start()
        while process.is_alive() and num_lines(journal) < count:
            time.sleep(0.002)
        process.kill()
        process.join()
    assert 0 < num_lines(journal) < 24
    with journal.open("a") as file:
        file.write('{"id": "i00')  # as a kill within a line leaves it

    assert main(line) == 0
    assert main([*line[:3], f"root={tmp_path / 'whole'}", "counts=any"]) == 0

    assert (root / "manifest.json").read_text() == (tmp_path / "whole/manifest.json").read_text()
    assert not list(root.rglob("*.part"))
    assert main(["verify", "dataset=voc", f"root={root}"]) == 0


def test_a_torn_journal_costs_one_pair_only(tmp_path, root, capsys) -> None:
    line = ("voc", trees.devkit(tmp_path), trees.sbd(tmp_path), f"root={root}")
    prepare(*line)
    journal = root / ".prepare.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    capsys.readouterr()

    assert prepare(*line) == 0
    assert "1 pair brought, 5 there already" in capsys.readouterr().out
    assert prepare(*line) == 0
    assert "0 pairs brought, 6 there already" in capsys.readouterr().out


def test_a_file_that_is_not_ours_is_never_written_over(tmp_path, root, capsys) -> None:
    line = ("voc", trees.devkit(tmp_path), trees.sbd(tmp_path), f"root={root}")
    prepare(*line)
    mine = root / "SegmentationClass/s0.png"
    mine.write_bytes(trees.palette_png(99) + b"mine")
    before = mine.read_bytes()
    capsys.readouterr()

    assert prepare(*line) == 2

    assert f"{mine} is there already and differs" in capsys.readouterr().out
    assert mine.read_bytes() == before


def test_a_root_with_foreign_files_is_refused(tmp_path, root, capsys) -> None:
    trees.put(root / "holiday.jpg", b"mine")

    assert prepare("voc", trees.devkit(tmp_path), f"root={root}") == 2

    assert "holds files that `prepare` did not bring (holiday.jpg)" in capsys.readouterr().err
    assert [path.name for path in root.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("inside", ["", "VOC2012/new"])
def test_a_root_within_a_source_is_refused(tmp_path, inside, capsys) -> None:
    devkit = trees.devkit(tmp_path)

    assert prepare("voc", devkit, f"root={devkit / inside}") == 2
    assert "lies in the source" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("nowhere", "does not exist"),
        ("file.txt", "is no folder and no archive"),
        ("empty", "lies nothing of VOC"),
    ],
)
def test_a_source_without_the_dataset_is_named(tmp_path, root, source, text, capsys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")

    assert prepare("voc", tmp_path / source, f"root={root}") == 2
    assert text in capsys.readouterr().err


def test_a_broken_source_is_a_defect_and_the_others_are_brought(tmp_path, root, capsys) -> None:
    devkit = trees.devkit(tmp_path)
    broken = devkit / "VOC2012/JPEGImages/t1.jpg"
    good = broken.read_bytes()
    broken.write_bytes(good[:300])
    line = ("voc", devkit, trees.sbd(tmp_path), f"root={root}")

    assert prepare(*line) == 2

    out = capsys.readouterr().out
    assert f"The image {broken} cannot be decoded" in out
    assert "5 pairs brought" in out
    assert not (root / "manifest.json").exists()
    broken.write_bytes(good)
    assert prepare(*line) == 0
    assert "1 pair brought, 5 there already" in capsys.readouterr().out


def test_two_cannot_prepare_one_root_at_once(tmp_path, root, capsys) -> None:
    root.mkdir()
    with (root / ".prepare.jsonl").open("a") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        assert prepare("voc", trees.devkit(tmp_path), trees.sbd(tmp_path), f"root={root}") == 2

    assert "Another process prepares" in capsys.readouterr().err


def test_a_moved_source_is_needed_no_more_after_a_copy(tmp_path, root) -> None:
    prepare("voc", trees.devkit(tmp_path / "a"), trees.sbd(tmp_path / "a"), f"root={root}")
    shutil.rmtree(tmp_path / "a")
    trees.voc_lists(root)

    assert main(["verify", "dataset=voc", f"root={root}"]) == 0
    assert isinstance(tree_of(VOC, root).image("s0"), Image.Image)
