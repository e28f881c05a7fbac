"""Numbers with their nouns, suggestions for wrong words, and lists that are cut."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from datasets.wording import did_you_mean, did_you_mean_path, listed, quantity

ROOT = Path(__file__).resolve().parents[2]


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
    assert did_you_mean_path(tmp_path) == f" {tmp_path} is a folder."
    (tmp_path / "data").symlink_to("version2")
    gone = f" {tmp_path}/data is a link to version2, which is gone."
    assert did_you_mean_path(tmp_path / "data/images") == gone
    assert did_you_mean_path(Path("outputs/my_grid.yaml/more")) == ""


def test_a_list_that_is_cut_says_how_many_it_leaves_out() -> None:
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert listed(["a", "b"], 2) == "a, b"


ROOMS = ("datasets", "trainer", "sweeps", "slurm", "orchestrator")
NEVER_ONE = {"classes", "pixels", "bytes", "tensors", "tiles"}
NO_NOUNS = {"is", "was", "has", "as", "its", "others", "gives", "holds", "leaves", "masks"}
PLURAL = re.compile(r" (?:[a-z]+ ){0,2}?([a-z]+[^su\W]s)\b")


def bare_counts(source: Path) -> Iterator[str]:
    """Counts in an f-string that stand before a noun in the plural."""
    for node in ast.walk(ast.parse(source.read_text())):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for part, text in pairwise(parts):
            if isinstance(part, ast.FormattedValue) and isinstance(text, ast.Constant):
                noun = PLURAL.match(text.value)
                is_count = re.match(r"len\(|sum\(|num_|count$|total$", ast.unparse(part.value))
                if is_count and noun and noun[1] not in NEVER_ONE | NO_NOUNS:
                    yield f"{source}:{node.lineno}: {ast.unparse(part)}{text.value[:30]}"


def test_no_message_prints_a_count_before_a_plural_by_itself() -> None:
    sources = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]

    assert [text for path in sources for text in bare_counts(path)] == []
