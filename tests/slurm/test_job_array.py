"""Calls that become jobs of a real Slurm."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from slurm.commands import SlurmRefused, SlurmSilent
from slurm.job_array import JobArray
from slurm.job_spec import JobSpec
from slurm.monitor import squeue
from tests.support.slurm.calls import SETUP, Count, Say, SumRanks
from tests.support.slurm.cluster import SlurmBox
from tests.support.wait_for import wait_until

SMALL = JobSpec(partition="low", memory_gb=0.3, setup=SETUP)


def test_one_call_carries_its_label_and_everything_it_asked_for(
    cluster: SlurmBox, tmp_path: Path
) -> None:
    spec = JobSpec(
        partition="high",
        gpus_per_task=2,
        memory_gb=0.5,
        minutes=7,
        extra=(("nice", "5"),),
        setup=(*SETUP, "export GREETING=hello"),
    )
    array = JobArray.write(tmp_path / "b", {"cell.a": Say(tmp_path / "said", "one")}, spec, "grid")

    job_id = array.submit()
    wait_until((tmp_path / "said").exists)

    words, node, gpus, greeting = (tmp_path / "said").read_text().split("|")
    assert (words, gpus, greeting) == ("one", "0,1", "hello")
    assert node in cluster.node_names
    facts = cluster.run("scontrol", "show", "job", job_id)
    for fact in ("JobName=cell.a", "TimeLimit=00:07:00", "mem=512M", "Nice=5", "Partition=high"):
        assert fact in facts
    assert array.job_of("cell.a") == job_id
    out, _ = array.logs("cell.a")
    wait_until(lambda: "Exiting after successful completion" in out.read_text())


def test_an_array_runs_every_call_and_each_job_takes_its_label(
    cluster: SlurmBox, tmp_path: Path
) -> None:
    calls = {f"cell.{i}": Count(tmp_path / str(i), 5, label=f"cell.{i}") for i in range(3)}
    array = JobArray.write(tmp_path / "b", calls, SMALL, "grid")

    array.submit()
    jobs = {array.job_of(label): label for label in array.labels}
    wait_until(lambda: all((tmp_path / f"{i}.ends").exists() for i in range(3)))

    named = {words[0]: words[1] for words in cluster.jobs()}
    assert {job: named[job] for job in jobs} == jobs
    assert JobArray.read(tmp_path / "b") == array


def test_a_wrong_wish_is_refused_in_slurms_words(cluster: SlurmBox, tmp_path: Path) -> None:
    array = JobArray.write(
        tmp_path / "b", {"a": Say(tmp_path / "x", "")}, JobSpec(partition="lowe")
    )

    with pytest.raises(SlurmRefused, match="invalid partition specified: lowe"):
        array.submit()


def test_a_kind_of_gpu_is_asked_for_as_the_site_does(cluster: SlurmBox, tmp_path: Path) -> None:
    spec = replace(SMALL, gpus_per_task=1, extra=(("gres", "gpu:fake:1"),))
    array = JobArray.write(tmp_path / "b", {"cell.a": Say(tmp_path / "said", "one")}, spec, "grid")

    job_id = array.submit()

    assert "gpu:fake:1" in cluster.run("scontrol", "show", "job", job_id)


def test_a_maintenance_holds_back_the_jobs_whose_limit_reaches_into_it(
    cluster: SlurmBox, tmp_path: Path
) -> None:
    words = ("reservationname=works", "starttime=now+5minutes", "duration=60", "user=root")
    cluster.run("scontrol", "create", "reservation", *words, "flags=maint", "nodes=ALL")
    try:
        long = JobArray.write(tmp_path / "long", {"a": Say(tmp_path / "a", "a")}, SMALL, "grid")
        brief = replace(SMALL, minutes=2)
        short = JobArray.write(tmp_path / "short", {"b": Say(tmp_path / "b", "b")}, brief, "grid")
        waiting = long.submit()
        short.submit()
        wait_until((tmp_path / "b").exists)

        info = squeue()[waiting]
        assert info.state == "PENDING"
        assert info.reason.startswith("ReqNodeNotAvail")
        cluster.run("scancel", waiting)
    finally:
        cluster.run("scontrol", "delete", "reservationname=works")


def test_a_drained_node_lets_its_job_end(cluster: SlurmBox, tmp_path: Path) -> None:
    call = Count(tmp_path / "counted", 10, label="a")
    array = JobArray.write(tmp_path / "b", {"a": call}, SMALL, "grid")
    job_id = array.submit()
    wait_until(lambda: squeue()[job_id].state == "RUNNING")

    node = squeue()[job_id].nodes
    cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        wait_until((tmp_path / "counted.ends").exists)
    finally:
        cluster.run("scontrol", "update", f"nodename={node}", "state=resume")


def test_a_submission_without_an_answer_is_found_by_its_name(
    cluster: SlurmBox, tmp_path: Path
) -> None:
    calls = {f"cell.{i}": Say(tmp_path / str(i), "ran") for i in range(2)}
    array = JobArray.write(tmp_path / "lost", calls, SMALL, "grid")
    cluster.freeze("slurmctld")

    with pytest.raises(SlurmSilent):
        array.submit()
    assert array.job_id is None
    cluster.thaw("slurmctld")
    wait_until(lambda: array.find_by_name(squeue()))

    wait_until(lambda: all((tmp_path / str(i)).exists() for i in range(2)))
    ours = [words for words in cluster.jobs() if words[0].startswith(f"{array.job_id}_")]
    assert len(ours) == 2


def test_tasks_on_two_nodes_meet_and_compute_together(cluster: SlurmBox, tmp_path: Path) -> None:
    spec = JobSpec(partition="low", memory_gb=1, nodes=2, tasks_per_node=2, setup=SETUP)
    JobArray.write(tmp_path / "b", {"a": SumRanks(tmp_path)}, spec).submit()

    wait_until(lambda: len(list(tmp_path.glob("rank-*"))) == 4)
    time.sleep(0.2)
    ranks = [(tmp_path / f"rank-{rank}").read_text().split() for rank in range(4)]
    assert [words[0] for words in ranks] == ["10"] * 4
    assert len({words[1] for words in ranks}) == 2
    assert [words[2:] for words in ranks] == [["0", "2"], ["1", "2"], ["0", "2"], ["1", "2"]]


def preempt_a_count(box: SlurmBox, folder: Path, partition: str) -> str:
    """Count on one node, take all nodes away for a moment; the signals that the count got."""
    count = Count(folder / "count", 25)
    spec = JobSpec(partition=partition, cpus_per_task=4, setup=SETUP)
    JobArray.write(folder / "low", {"a": count}, spec).submit()
    wait_until(lambda: count.reached() >= 5)
    urgent = JobSpec(partition="high", nodes=box.nodes, cpus_per_task=4, setup=SETUP)

    JobArray.write(folder / "high", {"u": Say(folder / "urgent", "")}, urgent).submit()
    wait_until((folder / "count.ends").exists)

    assert (folder / "count.ends").read_text() == "1\n"
    return (folder / "count.signals").read_text()


def test_a_preempted_job_notes_its_state_and_goes_on(cluster: SlurmBox, tmp_path: Path) -> None:
    assert "SIGUSR2 at" in preempt_a_count(cluster, tmp_path, "low")


def test_a_job_preempted_without_warning_goes_on_too(
    bare_cluster: SlurmBox, tmp_path: Path
) -> None:
    assert "SIGTERM at" in preempt_a_count(bare_cluster, tmp_path, "low")


def test_a_cancelled_job_stays_away(cluster: SlurmBox, tmp_path: Path) -> None:
    count = Count(tmp_path / "count", 1000)
    array = JobArray.write(tmp_path / "b", {"a": count}, SMALL)
    job_id = array.submit()
    wait_until(lambda: count.reached() >= 5)

    cluster.run("scancel", job_id)
    wait_until(lambda: [words[2] for words in cluster.jobs() if words[0] == job_id] != ["RUNNING"])
    wait_until(lambda: (tmp_path / "count.signals").exists())

    wait_until(lambda: squeue()[job_id].has_ended)
    assert squeue()[job_id].state == "CANCELLED"
