"""Labs for the launch tests: one per test, and one undisturbed grid to compare with."""

import shutil
from dataclasses import replace
from pathlib import Path

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


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, drawn: Path
) -> dict[str, tuple[str | None, float | None]]:
    """Weights and accuracies of the long cells when nothing happens."""
    lab = Lab(tmp_path_factory.mktemp("undisturbed"), drawn)
    lab.write_grid(*LONG_RUNS, epochs=EPOCHS)
    lab.run("launch", "backend=inline")
    assert len(set(lab.weights().values())) == len(LONG_RUNS)  # the cells do differ
    return lab.weights()


@pytest.fixture(scope="session")
def torchrun_weights(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> str:
    """Sha256 of the KL cell trained by two ranks under torchrun, when nothing happens."""
    return weights_by_torchrun(Lab(tmp_path_factory.mktemp("torchrun"), drawn))


@pytest.fixture
def blocked(long_lab: Lab, undisturbed: object, tmp_path: Path) -> Blocked:
    """The long lab with images of its own, which can be made to block."""
    data = tmp_path / "tree"
    shutil.copytree(long_lab.data, data)
    return Blocked(replace(long_lab, data=data))
