"""A launch whose cells are jobs of a real Slurm, disturbed in every way: the weights are equal."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from slurm.commands import SlurmSilent
from slurm.monitor import ENDED, squeue
from tests.support.hanging_trainer import HANGS, Blocked
from tests.support.lab import CHECKOUT, KL, LONGEST_SECONDS, Command, Lab
from tests.support.slurm.cluster import SlurmBox
from tests.support.wait_for import wait_until

SLURM = (
    "backend=slurm",
    "slurm.controller=plain",
    "gpus_per_rank=0",
    "slurm.memory_gb=1.2",
    "slurm.poll_seconds=4",
    "slurm.signal_seconds=5",
)
Weights = dict[str, tuple[str | None, float | None]]


@pytest.fixture(autouse=True)
def _short_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that died holds its cells for so long."""
    monkeypatch.setenv("CLAIM_FRESH_SECONDS", "6")


def diary(lab: Lab, key: str) -> list[str]:
    return [line["event"] for line in lab.events(key)]


def node_of(box: SlurmBox, key: str) -> str:
    return next(words[3] for words in box.jobs() if words[1] == key and words[2] == "RUNNING")


def finish(launch: Command, code: int = 0) -> str:
    """Wait for the end of a launch; what it printed since it was last read."""
    assert launch.stdout is not None
    with impatient(launch), launch.stdout:
        text = launch.stdout.read()
    assert launch.wait() == code, text
    return text


def read_until(launch: Command, words: str) -> None:
    """Wait for a line that a launch prints."""
    assert launch.stdout is not None
    read = []
    with impatient(launch):
        for line in launch.stdout:
            read.append(line)
            if words in line:
                return
    raise AssertionError(f"the launch ended without saying {words!r}: {''.join(read)}")


@contextmanager
def impatient(launch: Command) -> Iterator[None]:
    """End a launch that takes for ever."""
    timer = threading.Timer(LONGEST_SECONDS, launch.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def processes_of(box: SlurmBox, key: str) -> list[int]:
    """What trains a cell, as the kernel sees it from outside its nodes."""
    job_id = box.run("squeue", "-h", "-t", "RUNNING", "--name", key, "-o", "%A").strip()
    pids = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = environ.read_bytes()
        except OSError:
            continue
        signs = (b"SLURM_PROCID=", f"SLURM_JOB_ID={job_id}\0".encode(), os.fsencode(box.folder))
        if all(sign in words for sign in signs):  # another box may have a job of this number
            pids.append(int(environ.parent.name))
    return pids


def ended_as(job_id: str) -> str:
    """Slurm's word for a job; nothing while it does not answer."""
    try:
        return squeue()[job_id].state
    except (SlurmSilent, KeyError):
        return ""


def send(box: SlurmBox, key: str, number: signal.Signals) -> None:
    pids = processes_of(box, key)
    assert pids
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def hold(box: SlurmBox, lab: Lab, key: str, step: int = 4) -> None:
    """Let a cell stand still in the middle of its run, however fast the machine is."""
    lab.worker_at(key, step)
    send(box, key, signal.SIGSTOP)
    assert key not in lab.weights()


def release(box: SlurmBox, key: str) -> None:
    send(box, key, signal.SIGCONT)


def preempt(box: SlurmBox, key: str, cpus: int = 4) -> None:
    """Take all nodes away from a cell that stands still; Slurm's signals wake it."""
    job_id = box.run("squeue", "-h", "-t", "RUNNING", "--name", key, "-o", "%A").strip()
    before = restarts(box, job_id)
    fill = ["-p", "high", "-N3", f"-c{cpus}", "--mem=100", "-o", "/dev/null"]
    box.run("sbatch", *fill, "--wrap", "true")
    wait_until(lambda: restarts(box, job_id) > before)


def restarts(box: SlurmBox, job_id: str) -> int:
    """How often Slurm started a job again."""
    facts = box.run("scontrol", "show", "job", job_id)
    return int(facts.partition("Restarts=")[2].split()[0])


def test_a_card_of_slurm_that_torch_cannot_use_is_said_in_words_and_leaves_no_run(
    cluster: SlurmBox, lab: Lab
) -> None:
    lab.write_grid(("unimatch_star", "kl"))
    words = (word for word in SLURM if not word.startswith("gpus_per_rank"))

    text = lab.run("launch", *words, code=11)

    assert "no_device: " in text
    assert "gpus_per_rank=1 asks for a GPU, which torch cannot use: " in text
    assert not lab.rows()
    wait_until(lambda: lab.states() == {KL: "interrupted"})  # queued while Slurm completes the job
    assert "asks for a GPU, which torch cannot use" in lab.run("status", code=10)


def test_a_dead_node_a_preemption_and_a_dead_controller_leave_the_weights_alone(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch", *SLURM, "only=*.kl.*")
    hold(cluster, long_lab, KL)
    os.killpg(launch.pid, signal.SIGKILL)
    launch.communicate()
    cluster.lose(node_of(cluster, KL))

    launch = long_lab.start("launch", *SLURM)
    wait_until(lambda: long_lab.attempts(KL) == 2)
    hold(cluster, long_lab, KL, step=5)
    cluster.resume()
    preempt(cluster, KL)
    text = finish(launch)

    assert "still going on from an earlier launch: 1 job" in text
    assert "retry" not in text
    assert diary(long_lab, KL) == ["started", "started", "stopped", "started", "done"]
    assert long_lab.weights() == undisturbed
    assert {row.backend for row in long_lab.rows().values()} == {"slurm"}


def test_a_cancelled_grid_is_left_alone_until_the_next_launch(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch", *SLURM, "only=*.kl.*")
    hold(cluster, long_lab, KL)
    logs = subprocess.run(
        [sys.executable, "-m", "orchestrator", "logs", KL, f"root={long_lab.root}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"loss_inter_pixel"' in logs.stdout
    assert "submitit INFO" in logs.stdout
    assert "1 job cancelled" in long_lab.run("cancel")  # which wakes what stands still
    text = finish(launch, code=10)

    assert f"stopped  {KL}" in text
    assert diary(long_lab, KL) == ["started", "stopped"]
    finish(long_lab.start("launch", *SLURM, "only=*.kl.*"))
    assert long_lab.weights()[KL] == undisturbed[KL]


def test_an_outage_of_the_controller_hides_nothing_and_breaks_nothing(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch", *SLURM, "only=*.kl.*")
    hold(cluster, long_lab, KL)
    pids = processes_of(cluster, KL)
    cluster.stop("slurmctld")
    read_until(launch, "Slurm does not answer; jobs go on.")
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    text = finish(launch)  # while nobody can be asked
    cluster.start("slurmctld")

    assert "retry" not in text
    assert long_lab.attempts(KL) == 1
    assert long_lab.weights()[KL] == undisturbed[KL]


def test_killed_processes_and_memory_run_out_are_told_apart_without_accounting(
    bare_cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    tight = [word for word in SLURM if "memory" not in word]
    launch = long_lab.start("launch", *tight, "only=*.kl.*", "slurm.memory_gb=0.35")
    read_until(launch, "out_of_memory: job")
    hold(bare_cluster, long_lab, KL)
    send(bare_cluster, KL, signal.SIGKILL)
    text = finish(launch)

    assert "node_lost: job" in text
    assert long_lab.weights()[KL] == undisturbed[KL]


def test_ctrl_c_leaves_the_jobs_and_a_job_that_runs_twice_publishes_once(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    launch = long_lab.start("launch", *SLURM, "only=*.kl.*")
    hold(cluster, long_lab, KL)
    os.killpg(launch.pid, signal.SIGINT)
    assert "the jobs go on in Slurm" in finish(launch, code=10)
    job_id = next(words[0] for words in cluster.jobs("-t", "RUNNING") if words[1] == KL)

    release(cluster, KL)
    wait_until(lambda: KL in long_lab.weights())
    wait_until(lambda: ended_as(job_id) == "COMPLETED")
    rows = sorted((long_lab.root / "results" / "rows").iterdir())
    cluster.run("scontrol", "requeue", job_id)
    wait_until(lambda: restarts(cluster, job_id) == 1)
    wait_until(lambda: ended_as(job_id) == "COMPLETED")

    assert sorted((long_lab.root / "results" / "rows").iterdir()) == rows
    assert diary(long_lab, KL) == ["started", "done"]
    assert long_lab.weights()[KL] == undisturbed[KL]


def test_ranks_on_two_nodes_that_were_preempted_give_the_weights_of_torchrun(
    cluster: SlurmBox, long_lab: Lab, torchrun_weights: str
) -> None:
    launch = long_lab.start("launch", *SLURM, "ranks=2", "slurm.nodes=2", "only=*.kl.*")
    hold(cluster, long_lab, KL)
    preempt(cluster, KL)
    finish(launch)

    assert long_lab.rows()[KL].world_size == 2
    assert diary(long_lab, KL) == ["started", "stopped", "started", "done"]
    assert long_lab.rows()[KL].weights_sha256 == torchrun_weights


def test_a_waiting_job_is_shown_and_runs_the_code_of_its_launch(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    lab = long_lab.with_own_checkout()
    words = ("only=*.kl.*", "slurm.extra=begin=now+1hour")
    launch = lab.start("launch", *SLURM, *words)
    wait_until(lambda: cluster.jobs("-t", "PENDING"))
    os.killpg(launch.pid, signal.SIGKILL)
    launch.communicate()

    (cell,) = json.loads(lab.run("status", "--json", "only=*.kl.*", code=10))["cells"]
    ((job_id, name, *_),) = cluster.jobs("-t", "PENDING")
    assert (cell["key"], cell["state"], name) == (KL, "queued", KL)
    assert (cell["job"]["job_id"], cell["job"]["reason"]) == (job_id, "BeginTime")
    lab.edit()
    cluster.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")
    wait_until(lambda: KL in lab.weights() or ended_as(job_id) in ENDED)

    assert lab.weights()[KL] == undisturbed[KL]


def test_a_cell_longer_than_the_time_limit_finishes_over_several_jobs_by_itself(
    cluster: SlurmBox, long_lab: Lab, undisturbed: Weights
) -> None:
    # Slurm looks at limits every 30 s, and limits are whole minutes. The warning comes 25 to 55 s
    # after the start; one that comes while Python starts is not heard.
    words = ("only=*.kl.*", "slurm.minutes=1", "slurm.signal_seconds=5")
    launch = long_lab.start("launch", *SLURM[:-1], *words)
    hold(cluster, long_lab, KL)
    os.killpg(launch.pid, signal.SIGKILL)  # nobody watches from here on
    launch.communicate()
    wait_until(lambda: "stopped" in diary(long_lab, KL))  # the warning wakes what stands still
    wait_until(lambda: KL in long_lab.weights())

    assert diary(long_lab, KL)[:3] == ["started", "stopped", "started"]
    assert long_lab.weights()[KL] == undisturbed[KL]


def test_a_loader_that_blocks_on_one_of_two_nodes_ends_both_ranks_and_is_tried_again(
    cluster: SlurmBox, blocked: Blocked, torchrun_weights: str
) -> None:
    lab = blocked.lab
    words = ("ranks=2", "slurm.nodes=2", "only=*.kl.*")
    launch = lab.start("launch", *SLURM, *words, *HANGS)
    blocked.block()
    where = ("in read_bytes", "trainer/distributed.py")
    stacks = [blocked.tells(*where, rank=rank) for rank in (0, 1)]
    assert sorted("in read_bytes" in text for text in stacks) == [False, True]
    assert sorted("trainer/distributed.py" in text for text in stacks) == [False, True]
    blocked.free()
    text = finish(launch)

    assert re.search("hang: (Hang: )?no progress for", text)
    assert diary(lab, KL) == ["started", "failed", "started", "done"]
    assert lab.rows()[KL].weights_sha256 == torchrun_weights


def test_a_probe_times_a_kind_of_cell_on_the_ranks_that_would_run_it(
    cluster: SlurmBox, lab: Lab
) -> None:
    lab.write_grid(("supervised_star", "none"))
    words = (*SLURM, "ranks=2", "slurm.nodes=2")

    lab.run("plan", *words, "probe=yes")
    forecast = json.loads(lab.run("plan", *words, "--json"))["forecast"]["all"]

    assert forecast["core_hours"] == [2 * hours for hours in forecast["hours"]]
    assert forecast["gib"] > 0.0
    assert not (lab.root / "runs").exists()
    assert not (lab.root / "results").exists()
    assert set(lab.states(*words).values()) == {"missing"}


def test_a_probe_that_is_interrupted_leaves_no_job(cluster: SlurmBox, long_lab: Lab) -> None:
    for node in cluster.node_names:
        cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    probe = long_lab.start("plan", *SLURM, "probe=yes")
    wait_until(lambda: len(cluster.jobs("-t", "PENDING")) == 2)
    os.killpg(probe.pid, signal.SIGTERM)

    text = finish(probe)

    assert "SIGTERM: no further probe starts" in text
    assert cluster.jobs("-t", "PENDING,RUNNING") == []


def test_a_wrong_name_is_refused_at_once_and_nodes_that_are_away_are_not(
    cluster: SlurmBox, long_lab: Lab
) -> None:
    text = long_lab.run("launch", "backend=slurm", "slurm.partition=lowe", code=2)
    assert "invalid partition specified: lowe" in text
    assert "Correct slurm.partition" in text

    for node in cluster.node_names:
        cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    launch = long_lab.start("launch", *SLURM, "only=*.kl.*")
    wait_until(lambda: cluster.jobs("-t", "PENDING"))
    os.killpg(launch.pid, signal.SIGINT)
    finish(launch, code=10)
