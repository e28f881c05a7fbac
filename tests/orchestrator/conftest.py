"""Labs for the launch tests: one per test, and one undisturbed grid to compare with."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.hanging_trainer import Blocked
from tests.support.lab import EPOCHS, LONG_RUNS, Lab
from tests.support.lab import torchrun_weights as weights_by_torchrun


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn") / "tree"


@pytest.fixture
def lab(tmp_path: Path, drawn: Path) -> Lab:
    return Lab(tmp_path, drawn)


@pytest.fixture
def long_lab(lab: Lab) -> Lab:
    """Two cells long enough to be killed in the middle."""
    lab.write_grid(*LONG_RUNS, epochs=EPOCHS)
    return lab


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[], Any]) -> Any:
    """What `make` returns, as JSON holds it: the first worker makes it, the others read it."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each has a folder of its own in that of the session
        folder = folder.parent
    path = folder / f"{name}.json"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_text(json.dumps(make()))
    return json.loads(path.read_text())


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, drawn: Path
) -> dict[str, tuple[str | None, float | None]]:
    """Weights and accuracies of the long cells when nothing happens."""

    def launched() -> dict[str, tuple[str | None, float | None]]:
        lab = Lab(tmp_path_factory.mktemp("undisturbed"), drawn)
        lab.write_grid(*LONG_RUNS, epochs=EPOCHS)
        lab.run("launch", "backend=inline")
        return lab.weights()

    made = made_once(tmp_path_factory, "undisturbed", launched)
    weights = {key: (sha256, miou) for key, (sha256, miou) in made.items()}
    assert len(set(weights.values())) == len(LONG_RUNS)  # the cells do differ
    return weights


@pytest.fixture(scope="session")
def torchrun_weights(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> str:
    """Sha256 of the KL cell trained by two ranks under torchrun, when nothing happens."""

    def trained() -> str:
        return weights_by_torchrun(Lab(tmp_path_factory.mktemp("torchrun"), drawn))

    return str(made_once(tmp_path_factory, "torchrun", trained))


@pytest.fixture
def blocked(long_lab: Lab, undisturbed: object, tmp_path: Path) -> Blocked:
    """The long lab with images of its own, which can be made to block."""
    data = tmp_path / "tree"
    shutil.copytree(long_lab.data, data)
    return Blocked(replace(long_lab, data=data))
