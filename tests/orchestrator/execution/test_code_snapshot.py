"""A launch keeps the code that it began with, whatever happens to the checkout meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.backends.base import worker_environment
from orchestrator.execution.code_snapshot import CODE_PACKAGES, snapshot_code
from tests.support.lab import CHECKOUT, KL, LONGEST_SECONDS, Lab, committed


def test_the_same_code_is_copied_once_and_whole(tmp_path: Path) -> None:
    first, second = snapshot_code(tmp_path / "code"), snapshot_code(tmp_path / "code")

    assert first == second
    assert [path.name for path in (tmp_path / "code").iterdir()] == [first.name]
    assert sorted(path.name for path in first.iterdir()) == sorted(CODE_PACKAGES)
    for name in (
        "orchestrator/report/templates/style.css",
        "sweeps/grids/demo.yaml",
        "trainer/loop.py",
    ):
        assert (first / name).read_bytes() == (CHECKOUT / name).read_bytes()


def test_a_copy_that_somebody_changed_is_made_anew(tmp_path: Path) -> None:
    copy = snapshot_code(tmp_path / "code")
    (copy / "trainer" / "loop.py").write_text("broken")
    (copy / "trainer" / "more.py").write_text("broken")
    shutil.rmtree(copy / "slurm")

    assert snapshot_code(tmp_path / "code") == copy
    assert (copy / "trainer" / "loop.py").read_bytes() == (
        CHECKOUT / "trainer" / "loop.py"
    ).read_bytes()
    assert not (copy / "trainer" / "more.py").exists()


@pytest.mark.ray
@pytest.mark.long
def test_an_edit_of_the_checkout_during_a_launch_reaches_none_of_its_cells(
    long_lab: Lab, undisturbed: dict[str, tuple[str | None, float | None]]
) -> None:
    lab = long_lab.with_own_checkout()
    commit = committed(lab.checkout)
    launch = lab.start("launch", "only=*.kl.*")
    worker = lab.worker_at(KL, step=2)
    lab.edit()
    os.kill(worker, signal.SIGKILL)  # the next one imports everything anew
    text, _ = launch.communicate(timeout=LONGEST_SECONDS)

    assert launch.returncode == 0, text
    assert lab.attempts(KL) == 2
    row = lab.rows()[KL]
    assert (row.git_commit, row.git_dirty) == (commit, False)  # as the launch found it
    assert lab.weights()[KL] == undisturbed[KL]


def test_a_copy_looks_for_data_and_weights_where_the_checkout_does(tmp_path: Path) -> None:
    code = snapshot_code(tmp_path / "code")
    probe = (
        "from datasets.location import data_root; from trainer.config.compose import compose;"
        "from trainer.config.first_weights import WEIGHTS_FOLDER; import trainer;"
        "print(trainer.__path__[0], data_root(compose([]).data), WEIGHTS_FOLDER)"
    )

    def seen(environment: dict[str, str]) -> list[str]:
        found = {**os.environ, **environment}
        run = [sys.executable, "-P", "-c", probe]
        return subprocess.run(
            run, env=found, capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout.split()

    package, *places = seen(worker_environment(str(code)))
    assert package == str(code / "trainer")
    assert places == seen({"PYTHONPATH": str(CHECKOUT)})[1:]
