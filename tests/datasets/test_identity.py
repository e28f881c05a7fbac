"""The fingerprint of the data follows the bytes, whatever their sizes and times say."""

import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from datasets import identity
from datasets.__main__ import main
from datasets.config import DataConfig
from datasets.dataset import open_dataset
from datasets.identity import RECORDS, identity_of
from tests.support import dataset_trees as trees
from tests.support.strategies import labels


@pytest.fixture
def own(tmp_path: Path) -> DataConfig:
    """Ten images with masks, prepared: eight labelled, two for validation."""
    root = tmp_path / "mine"
    described = {"classes": ["a", "b", "c"], "images": "x/{id}.jpg", "masks": "y/{id}.png"}
    trees.put(root / "dataset.yaml", yaml.safe_dump(described))
    draw(root, range(10))
    assert main(["prepare", "folder", f"root={root}"]) == 0
    return DataConfig(dataset="folder", root=str(root), split="all", cache=str(tmp_path / "cache"))


def draw(root: Path, indices: range) -> None:
    for index in indices:
        trees.put(root / f"x/i{index}.jpg", trees.jpeg(index))
        trees.put(root / f"y/i{index}.png", trees.grey_png(labels(index, trees.SIZE, 3)))


def settle(root: Path) -> None:
    """Let the files look older than the time in which a change may go unseen."""
    then = time.time() - 60
    for path in root.rglob("*.*"):
        os.utime(path, (then, then))


def grown(root: Path) -> None:
    draw(root, range(10, 14))
    (root / "splits/all/labeled.txt").unlink()
    (root / "splits/all/unlabeled.txt").unlink()
    (root / "splits/all").rmdir()
    assert main(["prepare", "folder", f"root={root}"]) == 0


def same_size_and_time(root: Path) -> None:
    path = root / "y/i3.png"
    facts, content = path.stat(), bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def swapped(root: Path) -> None:
    first, second = root / "y/i1.png", root / "y/i2.png"
    first.rename(root / "y/tmp")
    second.rename(first)
    (root / "y/tmp").rename(second)


def linked_elsewhere(root: Path) -> None:
    path = root / "x/i4.jpg"
    trees.put(root.parent / "other.jpg", trees.jpeg(99))
    path.unlink()
    path.symlink_to(root.parent / "other.jpg")


def described_otherwise(root: Path) -> None:
    path = root / "dataset.yaml"
    path.write_text(path.read_text().replace("images:", "ignore: 2\nimages:").replace("- c\n", ""))


def moved_to_validation(root: Path) -> None:
    labelled, validation = root / "splits/all/labeled.txt", root / "splits/val.txt"
    first, *rest = labelled.read_text().splitlines(keepends=True)
    labelled.write_text("".join(rest))
    validation.write_text(validation.read_text() + first)


def listed_in_another_order(root: Path) -> None:
    path = root / "splits/all/labeled.txt"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (grown, r"8 new of 29 files, such as x/i10.jpg.*labelled 8 -> 12"),
        (same_size_and_time, r"1 changed of 21 files, such as y/i3.png$"),
        (swapped, r"2 changed of 21 files, such as y/i1.png, y/i2.png$"),
        (linked_elsewhere, r"1 changed of 21 files, such as x/i4.jpg$"),
        (described_otherwise, r"1 changed of 21 files, such as dataset.yaml$"),
        (listed_in_another_order, r"^data.split: .*: labelled 8 -> 8 \(in another order\)$"),
        (moved_to_validation, r"^data.split: .*labelled 8 -> 7 .*validation 2 -> 3 "),
    ],
)
def test_every_change_is_seen_and_named(own: DataConfig, change, text: str) -> None:
    root = Path(own.root)
    settle(root)
    before = open_dataset(own)
    assert identity_of(own) == before.identity

    change(root)
    changes = identity_of(own).changes_since(before.fingerprint, before.split.checksum)

    assert re.search(text, "; ".join(changes)), changes


def test_what_a_split_does_not_read_does_not_matter(own: DataConfig) -> None:
    root, before = Path(own.root), identity_of(own)

    draw(root, range(20, 22))
    line = ["splits", "make", "dataset=folder", f"root={root}", "labelled=n4", "name=few"]
    assert main(line) == 0
    few = identity_of(replace(own, split="few"))

    assert identity_of(own) == before
    assert few.fingerprint != before.fingerprint
    trees.put(root / "y/i20.png", trees.grey_png(labels(77, trees.SIZE, 3)))
    unlabelled = {f"y/{name}.png" for name in few.split.unlabelled}
    assert not unlabelled & set(few.files)


@pytest.mark.parametrize("is_writable", [True, False])
def test_files_that_did_not_change_are_hashed_once(
    own: DataConfig, monkeypatch: pytest.MonkeyPatch, is_writable: bool
) -> None:
    if not is_writable:  # root may write everywhere, so rights prove nothing
        for place in (Path(own.root) / RECORDS, Path(own.cache)):
            shutil.rmtree(place, ignore_errors=True)
            place.write_text("no folder")
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return file_sha256(path)

    file_sha256 = identity.file_sha256
    monkeypatch.setattr(identity, "file_sha256", counted)
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", -1.0)

    first = identity_of(own)
    assert len(read) == 20
    trees.put(Path(own.root) / "y/i3.png", b"other")
    second = identity_of(own)

    assert read[20:] == ["i3.png"]
    assert first.fingerprint != second.fingerprint
    assert identity_of(own) == second


def test_a_young_file_is_hashed_again(own: DataConfig) -> None:
    identity_of(own)

    assert not (Path(own.root) / RECORDS / "hashes.json").exists()


def test_where_the_data_cannot_be_written_the_users_cache_is_taken(own: DataConfig) -> None:
    root = Path(own.root)
    (root / RECORDS).write_text("no folder")  # root may write everywhere, so rights prove nothing
    before = open_dataset(own)

    grown(root)
    (change, _) = identity_of(own).changes_since(before.fingerprint, before.split.checksum)

    assert "8 new of 29 files" in change
    assert list((Path(own.cache) / "identity").glob("*.json.gz"))


def test_a_folder_that_was_made_anew_is_explained_by_the_users_cache(own: DataConfig) -> None:
    root, before = Path(own.root), open_dataset(own)
    shutil.rmtree(root / RECORDS)

    moved_to_validation(root)

    (change,) = identity_of(own).changes_since(before.fingerprint, before.split.checksum)
    assert "validation 2 -> 3 (1 others)" in change


def test_a_broken_record_is_made_anew(own: DataConfig) -> None:
    whole = open_dataset(own).identity
    for name in ("hashes.json", f"{whole.fingerprint}.json.gz"):
        trees.put(Path(own.root) / RECORDS / name, b"\x00")

    now = identity_of(own)

    assert now == whole
    (change,) = now.changes_since("0" * 64, now.split.checksum)
    assert change == f"data.root: other images or masks (00000000 -> {now.fingerprint[:8]})"


def test_packed_data_have_the_fingerprint_of_their_files(own: DataConfig, tmp_path: Path) -> None:
    files, root = identity_of(own), tmp_path / "packed"
    for words in ([], ["decoded=yes"]):
        target = root / "".join(words)
        assert main(["pack", "dataset=folder", f"root={own.root}", f"to={target}", *words]) == 0
        packed = open_dataset(replace(own, root=str(target)))
        assert packed.fingerprint == files.fingerprint
        assert main(["verify", "folder", f"root={target}"]) == 0
        assert open_dataset(replace(own, root=str(target))).fingerprint == files.fingerprint


def test_a_drawn_scene_that_was_edited_is_other_data(config: DataConfig, tmp_path: Path) -> None:
    config = replace(config, root=str(tmp_path / "drawn"))
    before = open_dataset(config)
    mask = before.tree.mask_path(before.split.validation[0])
    trees.put(mask, trees.grey_png(labels(5, (56, 40), 5)))

    (change,) = identity_of(config).changes_since(before.fingerprint, before.split.checksum)

    assert f"1 changed of {len(before.identity.files)} files, such as " in change
    assert change.endswith(mask.name)
