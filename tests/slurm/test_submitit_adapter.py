"""What this project needs of submitit, as submitit 1.5.4 does it."""

import difflib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import submitit

from slurm.job_spec import JobSpec
from slurm.submitit_adapter import paths_of_job, script_text, write_call
from tests.support.slurm.fake import FakeSlurm

SCRIPT = """\
#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-4%2
#SBATCH --comment=grid-b
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=3
#SBATCH --error=FOLDER/%A_%a_0_log.err
#SBATCH --gpus-per-node=2
#SBATCH --job-name=cell
#SBATCH --mem=1536M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --open-mode=append
#SBATCH --output=FOLDER/%A_%a_0_log.out
#SBATCH --partition=low
#SBATCH --qos=normal
#SBATCH --requeue
#SBATCH --reservation=paper
#SBATCH --signal=USR2@90
#SBATCH --time=7
#SBATCH --wckey=submitit

# setup
module load cuda

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output FOLDER/%A_%a_%t_log.out --error FOLDER/%A_%a_%t_log.err \
--kill-on-bad-exit=1 --cpus-per-task=3 \
sh -c 'trap "" USR2 TERM; exec "$@"' sh image python -u -m submitit.core._submit FOLDER
"""


@pytest.fixture(autouse=True)
def _srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitit writes scripts only where it sees srun."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    FakeSlurm(tmp_path).install()


def test_the_script_says_what_it_said_when_submitit_was_chosen(tmp_path: Path) -> None:
    spec = JobSpec(
        partition="low",
        account="lab",
        qos="normal",
        gpus_per_task=1,
        cpus_per_task=3,
        memory_gb=1.5,
        minutes=7,
        nodes=2,
        tasks_per_node=2,
        constraint="a100",
        signal_seconds=90,
        at_once=2,
        extra=(("reservation", "paper"),),
        setup=("module load cuda",),
        python="image python",
    )

    text = script_text(tmp_path, spec, 5, job_name="cell", comment="grid-b")

    changed = difflib.unified_diff(
        SCRIPT.replace("FOLDER", str(tmp_path)).splitlines(), text.splitlines(), lineterm="", n=0
    )
    assert list(changed) == [], (
        f"submitit {submitit.__version__} writes another script than 1.5.4 did (- was, + is). "
        "See whether jobs still are found, warned and started again (make test-slurm), then "
        "correct slurm/submitit_adapter.py or this text."
    )


def test_one_call_makes_no_array_and_what_is_not_asked_for_is_not_written(tmp_path: Path) -> None:
    text = script_text(tmp_path, JobSpec(), 1, job_name="cell", comment="grid-b")

    for word in ("array", "partition", "account", "qos", "gpus", "mem", "constraint"):
        assert f"#SBATCH --{word}" not in text
    assert f"#SBATCH --output={tmp_path}/%j_0_log.out" in text


@dataclass(frozen=True)
class Write:
    """A call whose effect can be seen."""

    path: Path

    def __call__(self) -> str:
        self.path.write_text("it ran")
        return "its answer"


def test_a_job_finds_its_call_by_its_number_and_runs_it(tmp_path: Path) -> None:
    paths = paths_of_job(tmp_path, "17_3")
    write_call(tmp_path / "call", Write(tmp_path / "effect"), 7)
    (tmp_path / "call").rename(paths.submitted_pickle)

    job = {"SLURM_JOB_ID": "20", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}
    rank = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    subprocess.run(
        [sys.executable, "-m", "submitit.core._submit", str(tmp_path)],
        env={**os.environ, **job, **rank, "SLURM_JOB_NUM_NODES": "1", "SUBMITIT_EXECUTOR": "slurm"},
        cwd=Path(__file__).resolve().parents[2],
        check=True,
        capture_output=True,
        timeout=120,
    )

    assert (tmp_path / "effect").read_text() == "it ran"
    assert paths.stdout == tmp_path / "17_3_0_log.out"
    assert paths.stderr == tmp_path / "17_3_0_log.err"
