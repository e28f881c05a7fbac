"""Names that people have: what `prepare` accepts is listed, read back and found."""

import shlex
from pathlib import Path

import pytest

from datasets.__main__ import main
from datasets.config import DataConfig
from datasets.dataset import open_dataset
from tests.support import dataset_trees as trees
from tests.support.strategies import labels

NAMES = (
    *(
        "IMG (1)",
        "a  b",
        "a, b",
        "x=y",
        "it's",
        'say "so"',
        "#1",
        "a&b",
        "50%",
        "~me",
        "$HOME",
        "*",
    ),
    *("données", "de\u0301compose\u0301", "写真 1", "a\u2028b", "a\u00a0b", "\u3000a", "a\x0bb"),
    *("a\\b", "[x]", "{id}", "a;b", "sub dir/a.b c", "a.jpg b", "-r", "%j", "a|b", "<a>", " a "),
)


def folder(root: Path, names: tuple[str, ...], **patterns: str) -> Path:
    patterns = {"images": "images/{id}.jpg", "masks": "masks/{id}.png"} | patterns
    lines = "".join(f"{key}: '{pattern}'\n" for key, pattern in patterns.items())
    trees.put(root / "dataset.yaml", f"classes: [background, cell]\n{lines}")
    for index, name in enumerate(names):
        mask = trees.grey_png(labels(index, trees.SIZE, 2))
        trees.put(root / patterns["images"].replace("{id}", name), trees.jpeg(index))
        trees.put(root / patterns["masks"].replace("{id}", name), mask)
    return root


def ids(root: Path) -> set[str]:
    split = open_dataset(DataConfig(dataset="folder", root=str(root), split="all", crop=8)).split
    return {*split.labelled, *split.unlabelled, *split.validation}


@pytest.mark.parametrize("image", ["images/{id}.jpg", "my images/{id} (x).jpg", "{id}.jpg"])
def test_any_file_name_is_listed_and_found(tmp_path: Path, image: str) -> None:
    names = tuple(name for name in NAMES if not (image.startswith("{") and name != name.strip()))
    root = folder(tmp_path / "d", names, images=image)

    assert main(["prepare", "folder", f"root={root}"]) == 0
    assert ids(root) == set(names)
    assert main(["prepare", "folder", f"root={root}"]) == 0
    assert main(["verify", "folder", f"root={root}"]) == 0


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "caf\udce9", "a\r\nb"])
def test_a_name_that_no_list_can_hold_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "d", ("one", "two", name))
    before = trees.snapshot(root)

    assert main(["prepare", "folder", f"root={root}"]) == 2
    assert "cannot be named in a list" in capsys.readouterr().out
    assert trees.snapshot(root) == before


@pytest.mark.parametrize(
    "name", ["données", "data (copy)", "a=b", "a,b", "it's", "#1", "a&b", "~x", "a b", "$(x)"]
)
def test_the_command_for_a_folder_of_any_name_can_be_pasted(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / name, ("a", "b", "c"))

    assert main(["prepare", "folder", f"root={root}"]) == 0
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("then: ")
    assert shlex.split(command)[5] == f"data.root={root}"
    assert "method=supervised_star method.match_iters=false loss=none optim.batch=2" in command


def test_lists_may_hold_plain_ids(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", ("a 1", "b", "c", "d.x"))
    for file, text in (("val", "a 1\n"), ("all/labeled", "b\r\nc\n"), ("all/unlabeled", "d.x\n")):
        trees.put(root / f"splits/{file}.txt", text)

    assert main(["prepare", "folder", f"root={root}"]) == 0
    assert ids(root) == {"a 1", "b", "c", "d.x"}


def test_linked_folders_are_entered_once_and_loops_left(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", ("night/a", "night/b", "day/a", "day/b"))
    for kind in ("images", "masks"):
        (root / kind / "day").rename(tmp_path / kind)
        (root / kind / "day").symlink_to(tmp_path / kind)
        (root / kind / "aagain").symlink_to(root / kind / "night")
        (root / kind / "night" / "up").symlink_to(root / kind)

    assert main(["prepare", "folder", f"root={root}"]) == 0
    assert ids(root) == {"night/a", "night/b", "day/a", "day/b"}


def test_a_link_to_nowhere_is_a_defect_and_leaves_no_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "d", ("a", "b", "c"))
    (root / "images/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")

    assert main(["prepare", "folder", f"root={root}"]) == 2
    assert "It is a link to" in capsys.readouterr().out
    assert not (root / "splits").exists()
    (root / "images/gone.jpg").unlink()
    assert main(["prepare", "folder", f"root={root}"]) == 0


@pytest.mark.parametrize("pattern", ["images/{id}.{ext}", "{x}/{id}.jpg", "images/{id}}.jpg"])
def test_a_brace_besides_the_id_is_explained(
    tmp_path: Path, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "d", ("a", "b"))
    text = (root / "dataset.yaml").read_text().replace("images/{id}.jpg", pattern)
    (root / "dataset.yaml").write_text(text)

    assert main(["prepare", "folder", f"root={root}"]) == 2
    assert "beside {id} it has no braces" in capsys.readouterr().err


def test_a_dot_before_the_folder_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "d", ("a", "b"), images="./images/{id}.jpg", masks="./masks//{id}.png")

    assert main(["prepare", "folder", f"root={root}"]) == 0
    assert "note: no pattern" not in capsys.readouterr().out


def test_another_unicode_form_of_a_mask_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "d", ("a", "b", "caf\u00e9"))
    (root / "masks/caf\u00e9.png").rename(root / "masks/cafe\u0301.png")

    assert main(["prepare", "folder", f"root={root}"]) == 2
    assert "another Unicode form" in capsys.readouterr().out
