"""Ray Tune as the controller of cells in Slurm, and of one grid in two places."""

from tests.support.lab import KL, UNIMATCH, Lab, kill_all
from tests.support.slurm.cluster import SlurmBox

WORDS = ("gpus_per_rank=0", "slurm.memory_gb=1.2", "slurm.poll_seconds=4")
Weights = dict[str, tuple[str | None, float | None]]


def test_jobs_outlive_the_tune_that_watches_them(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    words = ("backend=slurm", *WORDS, "only=*.kl.*")
    launch = long_lab.start("launch", *words)
    long_lab.worker_at(KL, step=2)
    kill_all(launch)

    text = long_lab.run("launch", *words)

    assert "retry" not in text
    assert long_lab.attempts(KL) == 1
    assert long_lab.weights() == {KL: undisturbed[KL]}


def test_a_budget_ends_jobs_at_a_checkpoint_and_a_larger_one_goes_on(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    words = ("backend=slurm", *WORDS, "only=*.kl.*")

    text = long_lab.run("launch", *words, "budget=1s", code=10)

    assert "budget=1s is reached: running cells checkpoint and end." in text
    assert long_lab.states("only=*.kl.*") == {KL: "interrupted"}
    assert [entry["event"] for entry in long_lab.events(KL)] == ["started", "stopped"]
    assert not cluster.jobs("-t", "PENDING,RUNNING")
    long_lab.run("launch", *words, "slurm.controller=plain", "budget=100h")
    assert long_lab.weights()[KL] == undisturbed[KL]


def test_one_grid_runs_half_on_ray_and_half_in_slurm(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    text = long_lab.run("launch", "backend=auto", "to_slurm=*.kl.*", "to_ray=*.none.*", *WORDS)

    assert "retry" not in text
    backends = {key: row.backend for key, row in long_lab.rows().items()}
    assert backends == {KL: "slurm", UNIMATCH: "ray"}
    assert long_lab.weights() == undisturbed
