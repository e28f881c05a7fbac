"""What `--json` prints has the keys that docs/json.md lists, and no others."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.commands.errors import ERROR_KINDS
from orchestrator.commands.output import print_json
from orchestrator.commands.verbs import VERBS
from orchestrator.doctor.checks import examine
from orchestrator.options import LaunchOptions
from orchestrator.reproduction.verdict import Verdict, verdicts_json
from orchestrator.storage.local_root import LocalRoot
from tests.support.lab import KL, SUPERVISED, Lab
from tests.support.result_rows import DRAWN, publish_drawn

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text()
NUMBER = "drawn-table/ipixmatch-kl/resnet14-w8-1of8"
ONLY_PLAN = ("cells[].gib_per_rank", "forecast.*")
SECTIONS = {
    verb: body
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    for verb in title.split(", ")
}


def documented(section: str) -> set[str]:
    """The paths of keys in the first column of a section's tables."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("| `")]
    return {path for line in lines for path in re.findall(r"`([^`]+)`", line.split("|")[1])}


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value that holds no other one, with its path; empty lists and objects as well."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        yield path, value


def check_keys(section: str, text: str, *, left_out: tuple[str, ...] = ()) -> None:
    """Every printed key is documented, and each documented one is printed, or its place empty."""
    paths = documented(section)
    unused, unknown = paths - set(left_out), set()
    empty = set()
    for path, value in leaves(json.loads(text)):
        names = {p for p in paths if re.fullmatch(re.escape(p).replace(r"\*", ".+"), path)}
        unused -= names
        if value in (None, [], {}):
            empty.add(path)
        elif not names:
            unknown.add(path)

    assert unknown == set()
    below_empty = tuple(f"{path}{sign}" for path in empty for sign in ".[")
    assert {path for path in unused if not path.startswith(below_empty)} == set()


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A root with a row for each cell of the drawn grid."""
    root = LocalRoot(tmp_path)
    publish_drawn(root)
    return [f"root={root.address}"]


@pytest.mark.parametrize(
    ("section", "more", "left_out"),
    [
        ("plan", [], ()),
        ("status", [], ONLY_PLAN),
        ("watch", [], ONLY_PLAN),
        ("tables", [], ()),
        ("tables --explain", ["--explain", NUMBER], ()),
        ("query", ["SELECT key, best_miou_percent FROM counted"], ()),
        ("export", ["to=csv"], ()),
        ("compact", [], ()),
    ],
)
def test_the_answer_has_the_documented_keys(section, more, left_out, words, capsys):
    assert main([section.split()[0], DRAWN, *words, *more, "--json"]) == 0

    check_keys(section, capsys.readouterr().out, left_out=left_out)


def test_a_diff_has_the_documented_keys(words, capsys):
    itself = words[0].replace("root=", "with=")

    assert main(["diff", DRAWN, *words, itself, "--json"]) == 0

    check_keys("diff", capsys.readouterr().out)


def test_the_check_of_a_manuscript_has_the_documented_keys(words, tmp_path, capsys):
    paper = tmp_path / "paper.tex"
    paper.write_text(f"\\gridtyped{{{NUMBER}}}{{99.9}}")

    assert main(["tables", DRAWN, *words, "--check", str(paper), "--json"]) == 1

    check_keys("tables --check", capsys.readouterr().out)


def test_a_launch_answers_with_the_states_at_its_end_and_its_lines_stand_apart(lab: Lab, capsys):
    lab.write_grid(("supervised_star", "none"))
    grid = str(lab.grid)

    assert main(["launch", grid, *lab.words, "backend=inline", "--json"]) == 0
    printed = capsys.readouterr()
    check_keys("launch", printed.out, left_out=ONLY_PLAN)
    assert json.loads(printed.out)["counts"]["done"] == 1
    assert f"start    {SUPERVISED}" in printed.err
    for verb in ("resume", "work"):
        assert main([verb, grid, *lab.words, "--json"]) == 0
        check_keys(verb, capsys.readouterr().out, left_out=ONLY_PLAN)
    assert main(["logs", SUPERVISED, lab.words[0], "--json"]) == 0
    check_keys("logs", capsys.readouterr().out)
    assert main(["figures", grid, *lab.words, "--json"]) == 0
    check_keys("figures", capsys.readouterr().out)


def test_verdicts_have_the_documented_keys():
    scores = {"best_miou_percent": (1.0, 1.0), "last_miou_percent": (1.0, 2.0)}
    verdict = Verdict(KL, 1, "different", 2, scores, ("a", "b"), 1, 2, "loss", ("torch",))

    check_keys("reproduce", verdicts_json([verdict]))


def test_the_doctor_has_the_documented_keys(tmp_path, capsys):
    check = next(iter(examine(LaunchOptions(), LocalRoot(tmp_path))))  # the next ones start Ray

    print_json({"checks": [asdict(check)]})

    check_keys("doctor", capsys.readouterr().out)


def test_every_verb_has_a_section():
    assert set(VERBS) <= set(SECTIONS)


@pytest.mark.parametrize(
    ("words", "code", "exit_code", "text"),
    [
        (["lunch"], "usage", 2, "Did you mean launch"),
        (["status", "demo", "rank=2"], "usage", 2, "Did you mean ranks"),
        (["launch", "demo", "--drill"], "usage", 2, "launch takes --json"),
        (["status", "demo", "root=/dev/null/root"], "file", 2, "/dev/null/root"),
        (["cancel", "demo"], "slurm_missing", 20, "squeue"),
    ],
)
def test_an_error_has_a_stable_code(words, code, exit_code, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")  # where Slurm's programs would be

    assert main([*words, "--json"]) == exit_code

    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert (error["code"], error["exit_code"]) == (code, exit_code)
    assert text in error["text"]
    assert printed.err == f"orchestrator: {error['text']}\n"


def test_the_page_lists_every_code():
    listed = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*) \|$", SECTIONS["Errors"], re.MULTILINE)

    known = [(kind.code, str(kind.exit_code), kind.meaning) for kind in ERROR_KINDS]
    assert listed == known
