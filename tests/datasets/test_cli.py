import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from datasets.__main__ import VERB_HELP, VERBS, main

SMALL = ["num_train=4", "num_val=2", "width=40", "height=30"]


@pytest.fixture
def root(tmp_path, capsys) -> Path:
    """Six drawn scenes."""
    assert main(["draw", f"root={tmp_path / 'd'}", *SMALL]) == 0
    capsys.readouterr()
    return tmp_path / "d"


def test_help_is_printed_by_the_real_door() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "datasets", "--help"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0
    assert "python -m datasets splits make" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_of_that_verb_alone(verb: str, capsys) -> None:
    assert main([verb, "--help"]) == 0

    text, entry = capsys.readouterr().out, VERB_HELP[verb]
    assert text.startswith(f"usage: python -m datasets {verb}")
    examples = [f"python -m datasets {example}" for example in entry.examples]
    said = [*(form for form, _ in entry.forms), *(name for name, _ in entry.settings), *examples]
    assert [piece for piece in said if piece not in text] == []
    assert all(example.split()[0] == verb for example in entry.examples)


def test_draw_says_what_it_did(tmp_path, capsys) -> None:
    line = ["draw", f"root={tmp_path / 'd'}", *SMALL]

    assert [main(line), main(line)] == [0, 0]
    assert capsys.readouterr().out.split()[0:6:5] == ["drew", "found"]


def test_prepare_synthetic_draws(tmp_path) -> None:
    assert main(["prepare", "synthetic", f"root={tmp_path / 'd'}", *SMALL]) == 0
    assert (tmp_path / "d/JPEGImages/scene_00005.jpg").is_file()


def test_verify_finds_a_sound_tree_sound(root, capsys) -> None:
    assert main(["verify", f"root={root}"]) == 0
    assert "every file is sound" in capsys.readouterr().out


def test_verify_names_every_defect_by_file(root, capsys) -> None:
    (root / "JPEGImages/scene_00000.jpg").write_bytes(b"no jpeg")
    (root / "JPEGImages/scene_00001.jpg").unlink()
    Image.new("L", (40, 30), 77).save(root / "SegmentationClass/scene_00002.png")
    Image.new("L", (30, 40), 0).save(root / "SegmentationClass/scene_00003.png")
    (root / "ImageSets/Segmentation/val.txt").write_text("scene_00000\n")

    assert main(["verify", f"root={root}"]) == 2
    out = capsys.readouterr().out
    assert "scene_00000.jpg cannot be decoded" in out
    assert "scene_00001.jpg is missing" in out
    assert "scene_00002.png holds class 77" in out
    assert "scene_00003.png is 30x40 pixels" in out
    assert "val.txt has changed" in out
    assert out.rstrip().endswith("9 defects")  # four seen in pixels, five by sha256


def test_verify_of_nothing_says_what_to_do(tmp_path, capsys) -> None:
    assert main(["verify", f"root={tmp_path}"]) == 2
    assert "holds no drawn scenes" in capsys.readouterr().err
    assert main(["verify", "dataset=voc", f"root={tmp_path}"]) == 2
    assert "splits fetch dataset=voc" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["voc", "cityscapes"])
def test_prepare_says_which_files_go_where(tmp_path, capsys, dataset) -> None:
    assert main(["prepare", dataset, f"root={tmp_path}"]) == 2

    out = capsys.readouterr().out
    assert f"{tmp_path}/splits/val.txt: missing" in out
    assert {"voc": "SegmentationClass/ID.png", "cityscapes": "labelTrainIds.png"}[dataset] in out


def test_splits_are_listed_with_their_sizes(capsys) -> None:
    assert main(["splits", "list"]) == 0
    assert main(["splits", "list", "dataset=voc", "root=/nowhere"]) == 0

    out = capsys.readouterr().out
    assert "1of8                   30        210         60" in out
    assert "p2_92                  92      10490       1449" in out


def test_a_dataset_may_be_given_as_a_word(root, tmp_path, capsys) -> None:
    assert main(["splits", "list", "voc", "root=/nowhere"]) == 0
    assert "p1_1of16" in capsys.readouterr().out

    assert main(["verify", "synthetic", f"root={root}"]) == main(["verify", f"root={root}"])
    assert main(["verify", "voc", f"root={tmp_path}"]) == 2
    assert "splits fetch dataset=voc" in capsys.readouterr().err


def test_splits_are_made_and_named_for_the_next_command(root, capsys) -> None:
    line = ["splits", "make", "dataset=voc", f"root={root}", "labelled=n2", "seed=1"]

    assert main(line) == 0
    assert capsys.readouterr().out == "data.split=seed1_n2\n"
    assert main(["splits", "make", "labelled=n2"]) == 2


def test_splits_of_drawn_scenes_need_no_proof(capsys) -> None:
    assert main(["splits", "verify"]) == 0
    assert "generated" in capsys.readouterr().out


def test_a_server_that_does_not_answer_has_its_own_exit_code(tmp_path) -> None:
    line = ["splits", "fetch", "dataset=voc", f"root={tmp_path}", "from=http://127.0.0.1:9"]

    assert main(line) == 20


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            ["paint"],
            "Unknown command 'paint'; known: draw, download, prepare, verify, pack, splits",
        ),
        (["prepar", "folder"], "Did you mean prepare?"),
        (["splits", "mak"], "Did you mean make?"),
        (["verify", "dataset=foldr"], "Did you mean folder?"),
        (["verify", "vok"], "Did you mean voc?"),
        (["draw", "widht=3"], "Cannot use widht here. Did you mean width?"),
        (["splits"], "lacks one of list, fetch, import, verify, make"),
        (["splits", "burn"], "Unknown `splits burn`; known: list"),
        (["splits", "import"], "lacks the folder"),
        (["verify", "dataset=coco"], "Unknown dataset 'coco'; known: cityscapes"),
        (
            ["verify", "coco"],
            "Cannot use coco here. See python -m datasets --help. The datasets are",
        ),
        (["verify", "voc", "dataset=voc"], "Cannot use voc here"),
        (["pack", "voc"], "lacks where to"),
        (["draw", "colour=red"], "Cannot use colour here"),
        (["draw", "width=wide"], "width=wide is no whole number"),
        (["draw", "dataset=voc"], "voc cannot be drawn"),
        (["splits", "import", "/nowhere", "dataset=voc"], "/nowhere/pascal/1_16/labeled.txt is"),
        (["splits", "import", "voc", "/nowhere"], "/nowhere/pascal/1_16/labeled.txt is"),
    ],
)
def test_a_wrong_line_exits_2_and_says_why(line, text, capsys, tmp_path) -> None:
    assert main([*line, f"root={tmp_path / 'none'}"]) == 2
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_arguments_print_the_help_as_an_error(capsys) -> None:
    assert main([]) == 2
    assert "python -m datasets draw" in capsys.readouterr().out
