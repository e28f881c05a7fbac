"""Ray Tune as the controller of cells in Slurm, and of one grid in two places."""

from tests.support.lab import KL, UNIMATCH, Lab, kill_all
from tests.support.slurm.cluster import SlurmBox

WORDS = ("gpus_per_rank=0", "slurm.memory_gb=1.2", "slurm.poll_seconds=4")
Weights = dict[str, tuple[str | None, float | None]]


def test_jobs_outlive_the_tune_that_watches_them(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch", "backend=slurm", *WORDS)
    long_lab.worker_at(KL, step=2)
    kill_all(launch)

    text = long_lab.run("launch", "backend=slurm", *WORDS)

    assert "retry" not in text
    assert long_lab.attempts(KL) == 1
    assert long_lab.weights() == undisturbed


def test_one_grid_runs_half_on_ray_and_half_in_slurm(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    text = long_lab.run("launch", "backend=auto", "to_slurm=*.kl.*", "to_ray=*.none.*", *WORDS)

    assert "retry" not in text
    backends = {key: row.backend for key, row in long_lab.rows().items()}
    assert backends == {KL: "slurm", UNIMATCH: "ray"}
    assert long_lab.weights() == undisturbed
