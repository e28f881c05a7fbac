"""One cell, started in every way there is, among variables and names that would disturb it."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.lab import KL, ODD, Lab, weights_without_launch
from tests.support.slurm.cluster import SlurmBox

pytestmark = pytest.mark.long

EPOCHS = 2
# What determinism.py lets through: each must be overruled, or not matter.
HOSTILE = {
    "OMP_NUM_THREADS": "7",
    "MKL_NUM_THREADS": "3",
    "PYTHONHASHSEED": "3",
    "NCCL_ALGO": "Tree",
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
}


@pytest.fixture(scope="session")
def calm_weights(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> str:
    """Sha256 of the cell trained by `python -m trainer` where nothing disturbs it."""
    lab = Lab(tmp_path_factory.mktemp("calm"), drawn)
    return weights_without_launch(lab, "trainer", epochs=EPOCHS)


@pytest.fixture
def hostile_lab(
    tmp_path: Path, drawn: Path, calm_weights: str, monkeypatch: pytest.MonkeyPatch
) -> Lab:
    """The same cell as a grid of an odd name, and the environment of every process from here on."""
    (tmp_path / ODD).mkdir()
    (tmp_path / ODD / "data").symlink_to(drawn)
    lab = Lab(tmp_path / ODD, tmp_path / ODD / "data", grid_name=ODD)
    lab.write_grid(("unimatch_star", "kl"), epochs=EPOCHS)
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    return replace(lab, is_warm=False)  # libraries read their environment when they are loaded


TORCHRUN = ["torch.distributed.run", "--nproc-per-node", "1", "--standalone", "-m", "trainer"]


@pytest.mark.parametrize("module", [["trainer"], TORCHRUN], ids=["trainer", "torchrun"])
def test_a_run_without_a_launch_heeds_no_environment(
    hostile_lab: Lab, calm_weights: str, module: list[str]
) -> None:
    weights = weights_without_launch(hostile_lab, *module, epochs=EPOCHS)

    assert len(calm_weights) == 64
    assert weights == calm_weights


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["backend=inline"], id="inline"),
        pytest.param(["backend=ray"], id="actor of Ray Tune", marks=pytest.mark.ray),
        pytest.param(["workers=group"], id="own worker group", marks=pytest.mark.ray),
    ],
)
def test_a_launch_gives_the_weights_of_the_trainer_alone(
    hostile_lab: Lab, calm_weights: str, words: list[str]
) -> None:
    hostile_lab.run("launch", *words)

    assert hostile_lab.rows()[KL].weights_sha256 == calm_weights


def test_a_job_of_slurm_gives_the_weights_of_the_trainer_alone(
    cluster: SlurmBox, hostile_lab: Lab, calm_weights: str
) -> None:
    words = ("backend=slurm", "slurm.controller=plain", "gpus_per_rank=0", "slurm.memory_gb=1.2")
    hostile_lab.run("launch", *words, "slurm.poll_seconds=1")

    assert hostile_lab.rows()[KL].backend == "slurm"
    assert hostile_lab.rows()[KL].weights_sha256 == calm_weights
