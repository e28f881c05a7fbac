"""A launch whose cells are jobs of a real Slurm, disturbed in every way: the weights are equal."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from orchestrator import events
from orchestrator.places import Places
from slurm.sightings import squeue
from tests.boxes.slurm import SlurmBox
from tests.orchestrator.launching import KL, UNIMATCH, Lab
from tests.waiting import wait_until

SLURM = (
    "backend=slurm",
    "slurm.controller=plain",
    "gpus_per_rank=0",
    "slurm.memory_gb=1.2",
    "slurm.poll_seconds=4",
    "slurm.signal_seconds=5",
)
FILL = ("sbatch", "-p", "high", "-N3", "-c4", "--mem=100", "-o/dev/null", "--wrap", "sleep 2")
Weights = dict[str, tuple[str | None, float | None]]


@pytest.fixture(autouse=True)
def _short_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that died holds its cells for so long."""
    monkeypatch.setenv("CLAIM_FRESH_SECONDS", "6")


def diary(lab: Lab, key: str) -> list[str]:
    return [e["event"] for e in events.read(Places.at(str(lab.root)).run(key).events)]


def node_of(box: SlurmBox, key: str) -> str:
    return next(words[3] for words in box.jobs() if words[1] == key and words[2] == "RUNNING")


def finish(launch: "subprocess.Popen[str]", code: int = 0) -> str:
    text, _ = launch.communicate(timeout=200)
    assert launch.returncode == code, text
    return text


def test_a_dead_node_a_preemption_and_a_dead_controller_leave_the_weights_alone(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch", *SLURM)
    long_lab.worker_at(KL, step=3)
    long_lab.worker_at(UNIMATCH, step=3)
    os.killpg(launch.pid, signal.SIGKILL)
    launch.communicate()

    node = node_of(cluster, KL)
    cluster.lose(node)
    launch = long_lab.start("launch", *SLURM)
    wait_until(lambda: long_lab.attempts(KL) == 2)
    cluster.resume()
    cluster.run(*FILL)
    text = finish(launch)

    assert "2 jobs of an earlier launch go on" in text
    assert "0 of them submissions" in text
    assert "stopped" in diary(long_lab, KL) + diary(long_lab, UNIMATCH)
    assert long_lab.attempts(KL) >= 2
    assert long_lab.weights() == undisturbed
    assert {row.backend for row in long_lab.rows().values()} == {"slurm"}


def test_a_cancelled_job_is_left_alone_until_the_next_launch(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch", *SLURM, "only=*.kl.*")
    long_lab.worker_at(KL, step=2)
    cluster.run("scancel", "--name", KL)
    text = finish(launch, code=10)

    assert f"stopped  {KL}" in text
    assert diary(long_lab, KL) == ["started", "stopped"]
    finish(long_lab.start("launch", *SLURM, "only=*.kl.*"))
    assert long_lab.weights()[KL] == undisturbed[KL]


def test_an_outage_of_the_controller_hides_nothing_and_breaks_nothing(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch", *SLURM, "only=*.kl.*")
    long_lab.worker_at(KL, step=2)
    cluster.stop("slurmctld")
    wait_until(lambda: KL in long_lab.weights())  # the row is there while nobody can be asked
    cluster.start("slurmctld")
    text = finish(launch)

    assert "Slurm does not answer; jobs go on." in text or "retry" not in text
    assert long_lab.attempts(KL) == 1
    assert long_lab.weights()[KL] == undisturbed[KL]


def test_killed_processes_and_memory_run_out_are_told_apart_without_accounting(
    bare_cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    tight = [word for word in SLURM if "memory" not in word]
    launch = long_lab.start("launch", *tight, "only=*.kl.*", "slurm.memory_gb=0.35")
    wait_until(lambda: long_lab.attempts(KL) >= 2 or launch.poll() is not None)
    long_lab.worker_at(KL, step=2)
    kill_job_processes(KL)
    text = finish(launch)

    assert "out_of_memory: job" in text
    assert "node_lost: job" in text
    assert long_lab.weights()[KL] == undisturbed[KL]


def kill_job_processes(key: str) -> None:
    """SIGKILL what trains a cell, as the kernel sees it from outside the node."""
    running = (seen for seen in squeue().values() if seen.state == "RUNNING")
    job_id = next(seen.job_id for seen in running if seen.name == key)
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = environ.read_bytes()
        except OSError:
            continue
        if b"SLURM_PROCID=" in words and f"SLURM_JOB_ID={job_id}\0".encode() in words:
            os.kill(int(environ.parent.name), signal.SIGKILL)


def test_ctrl_c_leaves_the_jobs_and_a_job_that_runs_twice_publishes_once(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch", *SLURM, "only=*.kl.*")
    long_lab.worker_at(KL, step=2)
    os.killpg(launch.pid, signal.SIGINT)
    assert "the jobs go on in Slurm" in finish(launch, code=10)
    job_id = next(words[0] for words in cluster.jobs() if words[1] == KL)

    wait_until(lambda: KL in long_lab.weights())
    rows = sorted((long_lab.root / "results" / "rows").iterdir())
    cluster.run("scontrol", "requeue", job_id)
    cluster.run("scontrol", "update", f"JobId={job_id}", "StartTime=now", check=False)
    wait_until(lambda: "Restarts=1" in cluster.run("scontrol", "show", "job", job_id))
    wait_until(lambda: squeue()[job_id].state == "COMPLETED")

    assert sorted((long_lab.root / "results" / "rows").iterdir()) == rows
    assert diary(long_lab, KL) == ["started", "done"]
    assert long_lab.weights()[KL] == undisturbed[KL]


def test_ranks_on_two_nodes_that_were_preempted_give_the_undisturbed_weights(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    words = ("ranks=2", "slurm.nodes=2", "only=*.kl.*")
    launch = long_lab.start("launch", *SLURM, *words)
    long_lab.worker_at(KL, step=3)
    time.sleep(0.5)
    cluster.run(*FILL)
    finish(launch)

    row = long_lab.rows()[KL]
    assert row.world_size == 2
    assert long_lab.attempts(KL) == 2
    fresh = Lab(long_lab.folder / "fresh", long_lab.data)
    fresh.folder.mkdir()
    fresh.grid.write_text(long_lab.grid.read_text())
    finish(fresh.start("launch", *SLURM, *words))
    assert fresh.weights()[KL] == long_lab.weights()[KL]
