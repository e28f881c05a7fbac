"""The doctor says what works, what does not, and what to do."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from orchestrator.doctor.checks import check_fast, check_root, check_slurm, exit_code_of
from orchestrator.options import LaunchOptions
from orchestrator.storage.local_root import LocalRoot
from tests.support.lab import CHECKOUT


@pytest.mark.long
def test_a_machine_without_slurm_gets_words_and_advice(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "orchestrator", "doctor", f"root={tmp_path}"]
    bare = {**os.environ, "PATH": str(Path(sys.executable).parent), "AWS_CONFIG_FILE": ""}
    bare.pop("AWS_ACCESS_KEY_ID", None)
    done = subprocess.run(
        call, cwd=CHECKOUT, env=bare, capture_output=True, text=True, check=False, timeout=120
    )

    assert "absent  Slurm: its commands are not here" in done.stdout
    assert "works   Ray: an own one starts" in done.stdout
    assert "works   folder" in done.stdout
    assert "absent  data: voc" in done.stdout
    assert "datasets" in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.glob(".doctor*"))


def test_a_folder_that_is_a_file_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    check = check_root(LocalRoot(tmp_path / "file"))

    assert (check.state, check.advice) == ("broken", "Choose another root=DIR")
    assert exit_code_of([check]) == 20


def test_nobody_answering_is_told_apart_from_no_slurm(tmp_path: Path) -> None:
    program = tmp_path / "scontrol"
    program.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    program.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{tmp_path}:{before}"
    try:
        (check,) = check_slurm(LaunchOptions(), LocalRoot(tmp_path))
    finally:
        os.environ["PATH"] = before

    assert check.state == "broken"
    assert "SLURM_CONF" in check.advice


def test_the_doctor_finds_the_extra_fast_where_it_is_installed() -> None:
    check = check_fast()

    assert check.state == "works"
    assert version("kornia-rs") in check.text


def test_the_extra_fast_may_be_absent() -> None:
    probe = (
        "import sys; sys.modules['kornia_rs'] = None\n"
        "from orchestrator.doctor.checks import check_fast; print(check_fast().state)"
    )
    command = [sys.executable, "-c", probe]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)

    assert done.stdout == "absent\n"
