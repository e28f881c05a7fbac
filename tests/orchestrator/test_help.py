"""`--help` of each verb is made of its declaration, and what that says is true."""

import re
import shlex
import shutil
from dataclasses import fields
from difflib import get_close_matches

import pytest

from orchestrator.__main__ import main
from orchestrator.commands.request import split_flags
from orchestrator.commands.verbs import LIKE, PROGRAM, VERBS
from orchestrator.options import LaunchOptions, joined, parse
from sweeps.grid import GRID_FOLDER, load_grid
from trainer.config.compose import field_names


def test_the_list_has_a_line_for_each_verb_and_no_option_of_a_launch(capsys):
    assert main(["--help"]) == 0

    text = capsys.readouterr().out
    first = text.partition("\n\n")[2].partition("\n\n")[0]
    assert re.findall(r"^  (\w+) ", first, re.MULTILINE) == list(VERBS)
    assert "slurm.partition" not in text


@pytest.mark.parametrize("word", VERBS)
def test_help_of_a_verb_has_its_form_its_settings_examples_and_exit_codes(word, capsys):
    assert main([word, "demo", "--help"]) == 0

    text, entry = capsys.readouterr().out, VERBS[word].help
    ((form, note),) = entry.forms
    assert text.startswith(f"usage: {PROGRAM} {word} {form}\n")
    said = [note, *(start for start, _ in entry.settings), *entry.exits.values()]
    said += [f"{PROGRAM} {example}" for example in entry.examples]
    assert [piece for piece in said if piece not in text] == []
    assert ("slurm.partition" in text) == (VERBS[word].options is None)


@pytest.mark.parametrize("word", VERBS)
def test_examples_are_commands_that_the_verb_takes(word):
    verb = VERBS[word]
    own = {start.partition("=")[0].lstrip("-").split()[0] for start, _ in verb.help.settings}

    for example in verb.help.examples:
        first, *words = shlex.split(example)
        flags, words = split_flags(joined(words))
        assert first == word
        assert set(flags) <= set(verb.flags)
        if verb.target == "grid":
            assert load_grid(words.pop(0)).cells
        elif verb.target:
            words.pop(0)
        settings = [w for w in words if "=" in w and w.partition("=")[0] not in own]
        options, _ = parse(settings)
        usual = LaunchOptions()
        names = {
            f.name for f in fields(usual) if getattr(options, f.name) != getattr(usual, f.name)
        }
        assert names <= set(verb.options if verb.options is not None else names)


def test_options_named_by_a_verb_exist():
    known = {item.name for item in fields(LaunchOptions)}

    assert {name for verb in VERBS.values() for name in verb.options or ()} <= known


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("luanch demo", "Unknown 'luanch'. Did you mean launch? Verbs: plan, launch"),
        ("--staus", "Did you mean status?"),
        ("plan dmeo", "known: demo, drawings, drawn_methods, earth, paper"),
        ("plan dmeo", "Did you mean demo?"),
        ("plan demo --jsno", "--help says more. Did you mean --json?"),
        ("plan demo prob=yes", "Unknown setting 'prob'. Did you mean probe?"),
        ("status demo probe=yes", "status takes no probe=; it is a word of plan."),
        ("launch demo with=paper", "launch takes no with=; it is a word of diff."),
        ("plan demo bakend=inline", "Did you mean backend"),
        ("plan demo slurm.partiton=gpu", "Did you mean partition?"),
        ("plan demo colour=mlid", "Did you mean mild?"),
    ],
)
def test_a_wrong_word_is_answered_by_the_nearest_one(capsys, tmp_path, line, text):
    assert main([*line.split(), f"root={tmp_path}"]) == 2
    assert text in capsys.readouterr().err


def test_no_option_of_a_launch_is_taken_for_a_misspelt_word_of_a_verb():
    names = [*(item.name for item in fields(LaunchOptions)), *field_names()]

    for verb in VERBS.values():
        near = [n for n in names if get_close_matches(n, verb.own_words, cutoff=LIKE)]
        assert near == []


def test_a_root_that_is_not_there_is_said_and_help_may_be_a_word(capsys, tmp_path):
    (tmp_path / "outputs").mkdir()

    assert main(["status", "demo", f"root={tmp_path / 'outptus'}"]) == 10
    assert f"outptus yet. Did you mean {tmp_path}/outputs?" in capsys.readouterr().err
    assert main(["help", "status"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m orchestrator status")


def test_a_table_given_as_a_grid_is_named_as_one(capsys):
    assert main(["plan", str(GRID_FOLDER.parent / "tables" / "demo.yaml")]) == 2
    assert "demo.yaml is a table; a grid names it under `tables:" in capsys.readouterr().err


def test_a_file_beside_a_misspelt_one_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(GRID_FOLDER / "demo.yaml", "my_grid.yaml")

    for wrong, right in (("my_gird.yaml", "my_grid.yaml"), ("my_grid", "./my_grid.yaml")):
        assert main(["plan", wrong]) == 2
        assert f"Did you mean {right}?" in capsys.readouterr().err
    assert main(["plan", "demo.yaml"]) == 2
    assert "The grid 'demo' of this project is given by its name alone" in capsys.readouterr().err
    assert main(["plan", "demo", "slurm=my_gridd.yaml"]) == 2
    assert "Did you mean my_grid.yaml?" in capsys.readouterr().err
    assert main(["tables", "demo", "--check", "my_grid.tex"]) == 2
    assert "Did you mean my_grid.yaml?" in capsys.readouterr().err


def test_a_flag_of_another_verb_is_refused_with_those_of_this_one(capsys):
    assert main(["status", "demo", "--drill"]) == 2
    assert "status takes --json, not --drill; python -m" in capsys.readouterr().err
