"""Cells as jobs of a real Slurm, under a root in a real object store."""

import signal

import pytest

from tests.support.lab import KL, Lab
from tests.support.s3.session import Store
from tests.support.slurm.cluster import SlurmBox

SLURM = (
    "backend=slurm",
    "slurm.controller=plain",
    "gpus_per_rank=0",
    "slurm.memory_gb=1.2",
    "slurm.poll_seconds=4",
    "slurm.signal_seconds=5",
)
Weights = dict[str, tuple[str | None, float | None]]


def test_jobs_go_on_from_the_store_when_their_node_is_lost(
    cluster: SlurmBox,
    long_lab: Lab,
    store: Store,
    undisturbed: Weights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLAIM_FRESH_SECONDS", "6")
    far = Lab(long_lab.folder, long_lab.data, store.url)
    launch = far.start("launch", *SLURM)
    far.worker_at(KL, step=2)
    launch.send_signal(signal.SIGINT)  # the jobs go on
    launch.communicate(timeout=60)
    assert launch.returncode == 10
    node = next(words[3] for words in cluster.jobs() if words[1] == KL and words[2] == "RUNNING")

    cluster.lose(node)
    cluster.resume()
    far.run("launch", *SLURM)

    assert far.weights() == undisturbed
    assert far.attempts(KL) >= 2
