import functools
import http.server
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.__main__ import main
from datasets.config import DataConfig
from datasets.errors import DataError, Unreachable
from datasets.known.list_file import line_of, lines_sha256
from datasets.known.registry import KNOWN
from datasets.location import locate
from datasets.splits import lists as splits
from datasets.splits.generate import make_lists
from datasets.splits.lists import published_splits
from datasets.splits.published import fetch_lists, import_lists, list_defects
from tests.support.dataset_trees import split_of
from tests.support.strategies import labels

VOC = KNOWN["voc"].spec
LISTS = {"labeled": ["a", "b"], "unlabeled": ["c"], "val": ["v"]}


def lines(ids: list[str]) -> list[str]:
    return [line_of(VOC, name) for name in ids]


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A `splits` folder as the UniMatch repository has it, and the checksums of its lists."""
    folder, table = tmp_path / "theirs", {}
    for name, ids in LISTS.items():
        inside = "val.txt" if name == "val" else f"92/{name}.txt"
        ours = "val.txt" if name == "val" else f"p2_92/{name}.txt"
        path = folder / "pascal" / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines(ids)))
        table[ours] = {
            "source": f"pascal/{inside}",
            "count": len(ids),
            "sha256": lines_sha256(lines(ids)),
        }
    checksums = tmp_path / "checksums.json"
    checksums.write_text(json.dumps({"repository": "o/r", "commit": "c0", "lists": {"voc": table}}))
    monkeypatch.setattr(splits, "CHECKSUMS", checksums)
    return folder


@pytest.fixture
def voc(tmp_path) -> DataConfig:
    return DataConfig(dataset="voc", root=str(tmp_path / "voc"), split="p2_92")


@pytest.mark.parametrize("inside", ["", "pascal"])
def test_lists_are_imported_from_the_folder_or_its_part(voc, source, inside) -> None:
    brought = import_lists(locate(voc), source / inside)

    assert sorted(brought) == ["p2_92/labeled.txt", "p2_92/unlabeled.txt", "val.txt"]
    assert split_of(voc).labelled == ("a", "b")
    assert list_defects(locate(voc)) == []


def test_nothing_is_imported_when_one_list_is_wrong(voc, source) -> None:
    (source / "pascal/val.txt").write_text("JPEGImages/x.jpg SegmentationClass/x.png")

    with pytest.raises(DataError, match=r"pascal/val\.txt is not the published list.*commit c0"):
        import_lists(locate(voc), source)
    assert not (Path(voc.root) / "splits").exists()


def test_nothing_is_imported_when_one_list_is_missing(voc, source) -> None:
    (source / "pascal/val.txt").unlink()

    with pytest.raises(DataError, match=r"pascal/val\.txt is missing.*github\.com/o/r at commit"):
        import_lists(locate(voc), source)
    assert not (Path(voc.root) / "splits").exists()


def test_drawn_scenes_have_no_lists_to_import(source) -> None:
    with pytest.raises(ValueError, match="No lists are published for synthetic"):
        import_lists(locate(DataConfig()), source)


def test_lists_are_fetched_from_a_server(voc, source) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            del arguments

    handler = functools.partial(Quiet, directory=str(source))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        fetch_lists(locate(voc), f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
        thread.join()

    assert split_of(voc).validation == ("v",)


def test_a_server_that_does_not_answer_is_another_error_with_the_way_around(voc) -> None:
    with pytest.raises(Unreachable, match=r"splits import DIR dataset=voc root="):
        fetch_lists(locate(voc), "http://127.0.0.1:9/splits")
    assert not (Path(voc.root) / "splits").exists()


def test_list_defects_name_missing_and_changed_lists(voc, source) -> None:
    import_lists(locate(voc), source)
    folder = Path(voc.root) / "splits"
    (folder / "val.txt").write_text("\n".join(lines(["w"])))
    (folder / "p2_92/labeled.txt").unlink()

    texts = list_defects(locate(voc))

    assert len(texts) == 2
    assert "labeled.txt: missing" in texts[0]
    assert "val.txt: not the published list" in texts[1]
    assert "no list is published" in list_defects(locate(voc), "mine")[0]


def with_masks(voc: DataConfig, count: int = 20) -> DataConfig:
    folder = Path(voc.root) / "SegmentationClass"
    folder.mkdir(parents=True)
    for index in range(count):
        labels(index, (8, 8)).save(folder / f"i{index:02d}.png")
    lists = Path(voc.root) / "ImageSets/Segmentation/val.txt"
    lists.parent.mkdir(parents=True)
    lists.write_text("i00\ni01\n")
    return voc


def test_made_lists_divide_the_images_that_have_masks(voc) -> None:
    name = make_lists(locate(with_masks(voc)), part="1of4", seed=3)

    split = split_of(replace(voc, split=name))

    assert name == "seed3_1of4"
    assert split.validation == ("i00", "i01")
    assert len(split.labelled) == 5  # of 18, rounded up as the published lists
    assert len(split.unlabelled) == 13


def test_made_lists_of_one_seed_are_nested(voc) -> None:
    with_masks(voc)
    names = [make_lists(locate(voc), part=part, seed=3) for part in ("n2", "1of4", "1of2")]

    small, middle, large = (set(split_of(replace(voc, split=n)).labelled) for n in names)

    assert small < middle < large


def test_made_cityscapes_lists_leave_val_and_test_out(tmp_path) -> None:
    config = DataConfig(dataset="cityscapes", root=str(tmp_path))
    for name in ("train/a/1", "train/a/2", "train/b/3", "val/c/4", "test/d/5"):
        path = tmp_path / KNOWN["cityscapes"].spec.mask_pattern.format(id=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        labels(1, (8, 8)).save(path)

    split = split_of(replace(config, split=make_lists(locate(config), part="n1", seed=0)))

    assert split.validation == ("val/c/4",)
    assert sorted(split.labelled + split.unlabelled) == ["train/a/1", "train/a/2", "train/b/3"]


@pytest.mark.parametrize(
    ("part", "name", "text"),
    [
        ("1of4", "p2_92", "published split; give another"),
        ("1of4", "1of8", "published split; give another"),
        ("1of4", "1_16", "at least one letter"),
        ("1of4", "../x", "letters, digits and underscores"),
        ("1of0", "mine", "is no part"),
        ("many", "mine", "is no part; write 1of16"),
    ],
)
def test_lists_that_cannot_be_made_are_refused(voc, part, name, text) -> None:
    with pytest.raises(ValueError, match=text):
        make_lists(locate(with_masks(voc)), part=part, seed=0, name=name)


def test_existing_lists_are_not_overwritten(voc) -> None:
    make_lists(locate(with_masks(voc)), part="n3", seed=0, name="mine")

    with pytest.raises(DataError, match="mine exists; remove it, or give another name"):
        make_lists(locate(voc), part="n4", seed=0, name="mine")


def test_a_root_without_masks_says_how_to_bring_them(voc) -> None:
    with pytest.raises(DataError, match=r"no mask SegmentationClass/\*\.png.*prepare voc"):
        make_lists(locate(voc), part="n3", seed=0)


def test_the_published_splits_are_those_of_the_tables() -> None:
    assert published_splits("voc")[:8] == [
        *("p1_1of16", "p1_1of8", "p1_1of4"),
        *("p2_92", "p2_183", "p2_366", "p2_732", "p2_1464"),
    ]
    assert published_splits("cityscapes") == ["1of16", "1of8", "1of4", "1of2"]


THEIRS = Path(__file__).resolve().parents[4] / "shared/splits"  # a copy beside the checkout
SIZES = {
    "voc": {
        "p1_1of16": 662,
        "p1_1of8": 1323,
        "p1_1of4": 2646,
        "p2_92": 92,
        "p2_183": 183,
        "p2_366": 366,
        "p2_732": 732,
        "p2_1464": 1464,
        "u2pl_1of16": 662,
        "u2pl_1of8": 1323,
        "u2pl_1of4": 2646,
    },
    "cityscapes": {"1of16": 186, "1of8": 372, "1of4": 744, "1of2": 1488},
}


@pytest.mark.parametrize("dataset", SIZES)
def test_the_real_lists_import_verify_and_divide_the_training_set(dataset, tmp_path) -> None:
    if not THEIRS.is_dir():
        sys.stderr.write(f"left out: the real lists, for which {THEIRS} is missing\n")
        return
    config = DataConfig(dataset=dataset, root=str(tmp_path))
    import_lists(locate(config), THEIRS)

    assert list_defects(locate(config)) == []
    whole = {"voc": 10582, "cityscapes": 2975}[dataset]
    everything = set()
    for name, count in SIZES[dataset].items():
        split = split_of(replace(config, split=name))
        assert len(split.labelled) == count
        assert len({*split.labelled, *split.unlabelled}) == whole
        everything |= {*split.labelled, *split.unlabelled}
        assert len(split.validation) == {"voc": 1449, "cityscapes": 500}[dataset]
    assert len(everything) == whole


def test_the_easier_protocol_is_told(voc, capsys) -> None:
    assert main(["splits", "list", "dataset=voc", f"root={voc.root}"]) == 0
    assert "u2pl_* is a protocol of its own and easier" in capsys.readouterr().out
