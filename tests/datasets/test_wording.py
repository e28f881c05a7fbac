"""Numbers with their nouns, suggestions for wrong words, and lists that are cut."""

from pathlib import Path

from datasets.wording import did_you_mean, did_you_mean_path, listed, quantity


def test_one_of_a_thing_has_no_s() -> None:
    assert [quantity(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert quantity(3, "entry", "entries") == "3 entries"


def test_the_nearest_word_is_asked_for() -> None:
    assert did_you_mean("luanch", ["plan", "launch"]) == " Did you mean launch?"
    assert did_you_mean("xyz", ["plan", "launch"]) == ""


def test_the_nearest_path_is_asked_for_part_by_part(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/my_grid.yaml").touch()
    monkeypatch.chdir(tmp_path)

    assert did_you_mean_path(Path("outptus/my_gird.yaml")) == " Did you mean outputs/my_grid.yaml?"
    assert did_you_mean_path(tmp_path / "output") == f" Did you mean {tmp_path}/outputs?"
    assert did_you_mean_path(Path("nothing/like/it")) == ""
    assert did_you_mean_path(Path("outputs/my_grid.yaml/more")) == ""


def test_a_list_that_is_cut_says_how_many_it_leaves_out() -> None:
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert listed(["a", "b"], 2) == "a, b"
