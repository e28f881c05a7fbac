"""What ended a job, from Slurm's word and the lines of its log."""

from pathlib import Path

import pytest

from orchestrator.backends.slurm.job_end import classify_exit
from orchestrator.trial import Trial
from slurm.monitor import JobInfo

LINES = {
    "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0.": "out_of_memory",
    "slurmstepd: error: StepId=7.0 exceeded memory limit (9 > 8), being killed": "out_of_memory",
    "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***": "timed_out",
    "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026 DUE TO PREEMPTION ***": "preempted",
    "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026 DUE TO NODE FAILURE, SEE": "node_lost",
    "ModuleNotFoundError: No module named 'submitit'": "bad_config",
    "srun: error: n1: task 0: Segmentation fault": "node_lost",
    "trainer.hardware.gpu.DeviceError: n1: gpus_per_rank=1 asks for a GPU": "no_device",
}


def failure(root: Path, state: str, line: str = "") -> str:
    log = root / "log.err"
    log.write_text(f"{line}\n")
    trial = Trial("cell", "", "f", str(root), "slurm", "")
    info = JobInfo("7", "7", state, nodes="n1")
    outcome = classify_exit(trial, info, None, before=0, log=log)
    return outcome.failure or outcome.status


@pytest.mark.parametrize(("line", "expected"), LINES.items())
def test_a_line_of_the_log_tells_why_a_job_failed(tmp_path: Path, line: str, expected: str) -> None:
    assert failure(tmp_path, "FAILED", line) == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("TIMEOUT", "timed_out"),
        ("PREEMPTED", "preempted"),
        ("NODE_FAIL", "node_lost"),
        ("OUT_OF_MEMORY", "out_of_memory"),
        ("CANCELLED", "stopped"),
        ("GONE", "node_lost"),
    ],
)
def test_slurms_word_counts_where_the_job_left_none(
    tmp_path: Path, state: str, expected: str
) -> None:
    assert failure(tmp_path, state) == expected


def test_a_job_that_could_not_write_its_log_ran_where_the_root_is_not_seen(tmp_path: Path) -> None:
    trial = Trial("cell", "", "f", str(tmp_path), "slurm", "")
    info = JobInfo("7", "7", "FAILED", nodes="n1")

    outcome = classify_exit(trial, info, None, before=0, log=tmp_path / "7_0_log.err")

    assert outcome.failure == "bad_config"
    assert "choose a root=DIR that every node sees" in outcome.error_text
