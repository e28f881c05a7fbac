"""Every command of this project that a page, a preset or a docstring names is run, in a small form.

A command is `python -m ...` or `make ...`, and short forms such as `... 6 10` or `logs CELL -f`.
What is found must stand in `page_commands.yaml`, beside the small form of it that is run here, or
beside the test elsewhere that runs it: a new command without a test fails by its name.
"""

import ast
import re
import shlex
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from datasets.location import HOME_VARIABLE
from orchestrator.commands.verbs import VERBS
from tests.support.lab import BASE, LONGEST_SECONDS
from tests.support.warm_process import WarmCommand

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("datasets", "trainer", "sweeps", "slurm", "orchestrator", "benchmarks")
SHORT = "|".join(VERBS)  # verbs, which pages also name alone
MAKE = "make (?:demo|test|check|setup|clean)"
COMMAND = re.compile(
    rf"(?:nice )?python -m \S|{MAKE}|\.\.\. (?:\S+=|\d|[a-z]+ )|(?:{SHORT}) [A-Z]|launch \S"
)
ENTRIES = yaml.safe_load((ROOT / "tests" / "page_commands.yaml").read_text())
SMALL = [entry for entry in ENTRIES if "small" in entry]
CELL = {**BASE, "method": "supervised_star", "loss": "none"}
SIZES = ("num_train=24", "num_val=4", "width=48", "height=40")
READY = (
    "python -m orchestrator launch tiny.yaml root=out backend=inline",
    "python -m datasets prepare folder root=own",
)


def texts() -> Iterator[tuple[Path, str]]:
    """What people read: pages whole, the comments of presets, the docstrings of code."""
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")):
        yield path, path.read_text()
    for path in (*ROOT.glob("sweeps/**/*.yaml"), ROOT / "Makefile"):
        comments = (line.partition("#")[2].strip() for line in path.read_text().splitlines())
        yield path, "\n".join(comments)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for path in (path for room in ROOMS for path in ROOT.glob(f"{room}/**/*.py")):
        nodes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))
        yield path, "\n".join(ast.get_docstring(node) or "" for node in nodes)


def commands(text: str) -> set[str]:
    """The commands in a text: its inline code, the lines of its blocks, and lines of their own."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [*"\n".join(blocks).replace("\\\n", " ").splitlines(), *rest.splitlines()]
    inline = re.findall(r"``?([^`]+)``?", rest)
    spoken = [
        line.strip() for line in lines if re.match(rf"\s*(nice )?(python -m \S|{MAKE}\b)", line)
    ]
    # A comment or a colon ends the command of a line, and so do blanks in the Makefile.
    ends = re.compile(r"\s+#.*|: .*|(?<=make demo)\s.*|(?<=make test)\s.*|(?<=trainer)\s{3}.*| && ")
    spoken = [part for line in spoken for part in ends.split(line)]
    found = (" ".join(part.split()) for part in (*inline, *spoken))
    # What a usage line leaves open is no part of the name.
    return {re.sub(r" \[.*|(?<!\.)\.$", "", part) for part in found if COMMAND.match(part)}


def test_every_command_that_is_named_is_run_by_a_test() -> None:
    named = defaultdict(set)
    for path, text in texts():
        for command in commands(text):
            named[command].add(str(path.relative_to(ROOT)))
    run = [command for entry in ENTRIES for command in entry["pages"]]

    missing = {command: sorted(named[command]) for command in named.keys() - set(run)}
    assert missing == {}, "give each a small form, or a test, in tests/page_commands.yaml"
    assert sorted(set(run) - named.keys()) == [], "no page names it any more: remove it there"
    assert len(run) == len(set(run))


def test_the_tests_that_run_other_commands_are_there() -> None:
    for entry in ENTRIES:
        if "test" in entry:
            path, _, name = entry["test"].partition("::")
            assert f"def {name}(" in (ROOT / path).read_text(), entry["test"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a grid, trained, images of one's own, and what else the small forms name."""
    folder = tmp_path_factory.mktemp("commands")
    drawn = [f"data.drawn.{size}" for size in SIZES]
    settings = {"overrides": ["optim.epochs=1", "run.device=cpu", "data.root=scenes", *drawn]}
    row = {"label": "Supervised", "cell": {"method": "supervised_star", "loss": "none"}}
    table = {
        "title": "Tiny",
        "cell": {axis: BASE[axis] for axis in ("recipe", "crop", "backbone")},
        "columns": {"split": [BASE["split"]]},
        "blocks": [{"rows": [row]}],
    }
    released = {**CELL, "recipe": "voc", "split": "p1_1of16", "backbone": "resnet50", "crop": 321}
    files = {
        "table.yaml": table,
        "tiny.yaml": {"title": "Tiny", "tables": ["table.yaml"], **settings},
        "released.yaml": {"title": "Codes", "cells": [{"base": {**released, "method": "cps"}}]},
        "site.yaml": {"partition": "gpu", "minutes": 720},
        "own/dataset.yaml": {
            "classes": ["background", "cell"],
            "images": "images/{id}.png",
            "masks": "masks/{id}.png",
        },
    }
    for kind in ("images", "masks"):
        (folder / "own" / kind).mkdir(parents=True)
        for number in range(16 if kind == "images" else 10):  # six have no mask
            picture = np.full((40, 48, 3) if kind == "images" else (40, 48), number % 2, np.uint8)
            Image.fromarray(picture).save(folder / "own" / kind / f"{number}.png")
    for name, content in files.items():
        (folder / name).write_text(yaml.safe_dump(content))
    (folder / "my.tex").write_text("\\input{table_numbers}\\gridtyped{table/supervised/1of2}{0.0}")
    return folder


@pytest.fixture(autouse=True)
def _alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data of this checkout, no GPU, no Slurm and no package index."""
    monkeypatch.setenv(HOME_VARIABLE, str(place / "home"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("SLURM_CONF", raising=False)


def run(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit code of a small form, and what it printed."""
    if words[0] == "make":
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr
    assert words[:2] == ["python", "-m"]
    monkeypatch.setenv("PATH", "/nonexistent")  # where Slurm's programs would be
    module = words[2]
    # Most benchmarks start Pythons of their own; these open data that lie where they were drawn.
    openers = ("benchmarks.study.loss_picture", "benchmarks.study.pseudo_labels")
    is_outside = module.startswith("benchmarks") and module not in openers
    cwd = ROOT if is_outside else place
    process = WarmCommand(words[3:], cwd, "" if module == "orchestrator" else module)
    text, _ = process.communicate(timeout=LONGEST_SECONDS)
    assert process.returncode is not None
    return process.returncode, text


@pytest.fixture(scope="module")
def ready(place: Path) -> None:
    """The cell of the tiny grid is trained, and the images of one's own are prepared."""
    with pytest.MonkeyPatch.context() as patch:
        for command in READY:
            code, text = run(shlex.split(command), place, patch)
            assert code == 0, text


@pytest.mark.parametrize("entry", SMALL, ids=[entry["small"] for entry in SMALL])
def test_a_small_form_of_the_command_does_what_the_page_says(
    entry: dict[str, str], place: Path, ready: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trained,) = (place / "out" / "runs").iterdir()
    given = {"GRID": "tiny.yaml", "RUN": str(trained), "TMP": str(place / "wheels")}
    words = [given.get(word, word) for word in shlex.split(entry["small"])]

    code, text = run(words, place, monkeypatch)

    assert (code, entry.get("prints", "") in text) == (entry.get("code", 0), True), text
