import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.config import DataConfig, SyntheticConfig
from datasets.errors import DataError
from datasets.known.list_file import line_of, lines_sha256, read_lines
from datasets.known.registry import KNOWN
from datasets.known.synthetic import DRAWN_SPLITS
from datasets.splits import lists as splits
from datasets.splits.lists import checked_split, split_sizes
from tests.support.dataset_trees import split_of

VOC = KNOWN["voc"].spec


def drawn(split: str, num_train: int = 100, seed: int = 0) -> DataConfig:
    return DataConfig(split=split, drawn=SyntheticConfig(num_train=num_train, num_val=7, seed=seed))


def write_list(path: Path, ids: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line_of(VOC, name) + "\n" for name in ids))


@pytest.fixture
def voc(tmp_path) -> DataConfig:
    """A VOC root with lists of one's own called `mine`."""
    write_list(tmp_path / "splits/mine/labeled.txt", ["a", "b"])
    write_list(tmp_path / "splits/mine/unlabeled.txt", ["c", "d", "e"])
    write_list(tmp_path / "splits/val.txt", ["v"])
    return DataConfig(dataset="voc", root=str(tmp_path), split="mine")


@given(st.integers(1, 300), st.integers(0, 2**40), st.sampled_from(list(DRAWN_SPLITS)))
def test_a_drawn_split_divides_the_training_scenes(count: int, seed: int, name: str) -> None:
    split = split_of(drawn(name, count, seed))

    assert len(split.labelled) + len(split.unlabelled) == count
    assert not set(split.labelled) & set(split.unlabelled)
    assert len(split.labelled) == -(-count // DRAWN_SPLITS[name])
    assert len(split.validation) == 7


@given(st.integers(16, 300), st.integers(0, 2**40))
def test_drawn_splits_are_nested(count: int, seed: int) -> None:
    names = ["n1", "1of16", "1of8", "1of4", "1of2", "full"]
    labelled = [set(split_of(drawn(name, count, seed)).labelled) for name in names]

    assert all(small <= large for small, large in pairwise(labelled))


def test_a_counted_split_has_so_many_labels_and_depends_on_the_seed() -> None:
    split, other = split_of(drawn("n12")), split_of(drawn("n12", seed=1))

    assert len(split.labelled) == 12
    assert set(split.labelled) != set(other.labelled)
    assert split.checksum != other.checksum


def test_the_seeded_order_never_changes() -> None:
    assert "".join(splits.seeded_order("abcdefgh", 0)) == "hebdgfca"  # of the first run ever


def test_a_split_of_every_scene_leaves_none_unlabelled() -> None:
    assert split_of(drawn("full")).unlabelled == ()


@pytest.mark.parametrize("name", ["1of3", "p2_92", "12", "n", ""])
def test_an_unknown_split_lists_the_known(name) -> None:
    with pytest.raises(ValueError, match=r"Unknown split .* 1of16, 1of8, 1of4, 1of2, full, or nN"):
        split_of(drawn(name))


def test_more_labels_than_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match="asks for 101 labelled scenes, there are 100"):
        split_of(drawn("n101"))


def test_a_split_without_labels_is_refused_with_a_cure() -> None:
    with pytest.raises(DataError, match=r"'n0' has no labelled images.*Choose a larger split"):
        split_of(drawn("n0"))


def test_lists_of_one_s_own_are_read_in_their_order(voc) -> None:
    split = split_of(voc)

    assert split.labelled == ("a", "b")
    assert split.unlabelled == ("c", "d", "e")
    assert split.validation == ("v",)
    assert split_sizes(voc) == (2, 3, 1)


def test_the_checksum_sees_every_list_and_the_order(voc) -> None:
    folder = Path(voc.root) / "splits"
    checksums = {split_of(voc).checksum}
    for file, ids in (("mine/labeled.txt", ["b", "a"]), ("mine/unlabeled.txt", ["c", "d"])):
        write_list(folder / file, ids)
        checksums.add(split_of(voc).checksum)
    write_list(folder / "val.txt", ["w"])

    assert len(checksums | {split_of(voc).checksum}) == 4


def test_an_unknown_voc_split_lists_the_published_and_one_s_own(voc) -> None:
    with pytest.raises(ValueError, match=r"p1_1of16, .*p2_92, .*u2pl_1of4, mine\."):
        split_of(replace(voc, split="1_16"))


def test_a_missing_list_says_how_to_bring_it(voc) -> None:
    with pytest.raises(DataError, match=r"p2_92/labeled\.txt is missing.*splits fetch"):
        split_of(replace(voc, split="p2_92"))


def test_a_list_with_a_published_name_must_be_the_published_one(voc) -> None:
    write_list(Path(voc.root) / "splits/p2_92/labeled.txt", ["a", "b"])

    with pytest.raises(DataError, match=r"is not the published list.*\(2 lines, .* has 92\)"):
        split_of(replace(voc, split="p2_92"))


def test_a_published_list_is_taken_whatever_its_line_ends(voc, monkeypatch) -> None:
    folder = Path(voc.root) / "splits"
    files = ("mine/labeled.txt", "mine/unlabeled.txt", "val.txt")
    table = {
        file: {"source": file, "count": 1, "sha256": lines_sha256(read_lines(folder / file))}
        for file in files
    }
    checksums = folder / "checksums.json"
    checksums.write_text(json.dumps({"lists": {"voc": table}}))
    monkeypatch.setattr(splits, "CHECKSUMS", checksums)
    for file in files:
        (folder / file).write_bytes((folder / file).read_bytes().replace(b"\n", b"\r\n").strip())

    assert split_of(voc).labelled == ("a", "b")


@pytest.mark.parametrize(
    "line", ["JPEGImages/a.jpg", "a", "JPEGImages/a.jpg SegmentationClass/b.png", "x/a.png y/a.png"]
)
def test_a_line_of_another_form_is_named_with_its_number(voc, line) -> None:
    path = Path(voc.root) / "splits/mine/unlabeled.txt"
    path.write_text(path.read_text() + line + "\n")

    with pytest.raises(DataError, match=r"unlabeled\.txt, line 4: .* one reads like"):
        split_of(voc)


@pytest.mark.parametrize(
    ("lists", "text"),
    [
        ((["a", "b"], ["b"], ["v"]), "1 image both labelled and unlabelled, e.g. 'b'"),
        ((["a", "v"], ["b"], ["v"]), "both labelled and validation, e.g. 'v'"),
        ((["a"], ["b", "v"], ["v"]), "both unlabelled and validation"),
        ((["a", "b", "a"], [], ["v"]), "labelled list of split 'x' names 'a' more than once"),
        ((["a"], ["b", "b"], ["v"]), "unlabelled list of split 'x' names 'b' more than once"),
        (([], ["b"], ["v"]), "has no labelled images"),
        ((["a"], ["b"], []), "has no validation images"),
    ],
)
def test_lists_that_do_not_divide_the_data_are_refused(lists, text) -> None:
    with pytest.raises(DataError, match=text):
        checked_split("x", lists, where="here")


def test_sizes_of_published_splits_need_no_data() -> None:
    sizes = {
        name: split_sizes(DataConfig(dataset="voc", root="/nowhere", split=name))[:2]
        for name in splits.published_splits("voc")
    }

    assert all(sum(pair) == 10582 for pair in sizes.values())  # trainaug
    assert sizes["p1_1of16"] == (662, 9920)
    assert sizes["p2_1464"] == (1464, 9118)
    assert split_sizes(DataConfig(dataset="cityscapes", root="/nowhere", split="1of8")) == (
        372,
        2603,
        500,
    )


def test_a_split_of_one_s_own_may_have_its_own_validation_images(voc) -> None:
    root = Path(voc.root)
    usual = split_of(voc)
    write_list(root / "splits/mine/val.txt", ["own"])

    assert split_of(voc).validation == ("own",) != usual.validation
    assert split_of(voc).labelled == usual.labelled
