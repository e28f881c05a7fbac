"""Errors on the command lines: a sentence each, and the traceback on request."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.__main__ import main
from datasets.command_errors import error_text, is_deliberate, kept_traceback, without_flag
from datasets.errors import DataError
from orchestrator.__main__ import main as orchestrator_main


def failure(cause: str) -> Exception:
    """An error of some cause, with its traceback."""
    try:
        if cause == "ours":
            raise DataError("a.png is broken. Copy it again.")
        if cause == "a file":
            Path("/nowhere/at/all").read_text()
        if cause == "torch":
            torch.zeros(2, 3) @ torch.zeros(2, 3)
        if cause == "numpy":
            np.zeros(3).reshape(2, 2)
        assert cause == "no text"
        raise_without_text()
    except (AssertionError, OSError, RuntimeError, ValueError) as error:
        return error
    raise KeyError(cause)


def raise_without_text() -> None:
    assert not Path("/").exists()


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        ("ours", "a.png is broken. Copy it again."),
        ("a file", "No such file or directory: /nowhere/at/all"),
    ],
)
def test_a_text_for_users_is_printed_as_it_is(cause: str, text: str) -> None:
    error = failure(cause)

    assert is_deliberate(error)
    assert error_text(error) == text


@pytest.mark.parametrize("cause", ["torch", "numpy", "no text"])
def test_an_unexpected_error_has_a_place_and_a_file_with_its_traceback(cause: str) -> None:
    error = failure(cause)

    text = error_text(error)

    assert "\n" not in text
    assert re.match(
        rf"{type(error).__name__} at tests/datasets/test_command_errors\.py:\d+: ", text
    )
    log = Path(re.search(r"The traceback is in (\S+\.log); --traceback prints it\.", text)[1])
    assert log.read_text().startswith("Traceback (most recent call last)")
    log.unlink()


@pytest.mark.parametrize("cause", ["ours", "torch"])
def test_the_flag_prints_the_traceback(cause: str) -> None:
    text = error_text(failure(cause), shows_traceback=True)

    assert "Traceback (most recent call last)" in text
    assert without_flag(["a=1", "--traceback"]) == (["a=1"], True)


def test_only_an_unexpected_error_leaves_a_log(tmp_path: Path) -> None:
    for cause, is_kept in (("ours", False), ("torch", True)):
        error = failure(cause)
        with pytest.raises(type(error)), kept_traceback(tmp_path / cause / "errors.log"):
            raise error
        assert (tmp_path / cause / "errors.log").exists() is is_kept

    assert f"The traceback is in {tmp_path}/torch/errors.log" in error_text(error)


@pytest.mark.parametrize(
    ("door", "words", "code", "start"),
    [
        (main, ["verify", "voc", "root=/nowhere"], 2, "datasets: "),
        (orchestrator_main, ["plan", "no_such_grid"], 2, "orchestrator: "),
        (orchestrator_main, ["plan", "demo", "data.drawn={a: 1}"], 2, "orchestrator: "),
        (orchestrator_main, ["plan", "demo", "optim.lr={a: 1}"], 2, "orchestrator: "),
        (orchestrator_main, ["tables", "demo", "--check"], 2, "orchestrator: --check needs"),
    ],
)
def test_the_doors_are_alike(door, words, code, start, capsys) -> None:
    assert door(words) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(start)

    assert door([*words, "--traceback"]) == code
    assert "Traceback (most recent call last)" in capsys.readouterr().err
