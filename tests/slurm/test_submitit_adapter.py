"""What this project needs of submitit, as submitit 1.5.4 does it."""

import difflib
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import submitit

from slurm.job_spec import JobSpec
from slurm.submitit_adapter import call_file, failure_mark, log_files, script_text, write_call
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
srun --unbuffered --kill-on-bad-exit=1 --cpus-per-task=3 \
sh -c 'trap "" USR2 TERM; exec "$@"' sh image python -u -m slurm.job_start FOLDER \
|| { code=$?; touch FOLDER/failed; exit $code; }
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


@pytest.mark.parametrize(
    ("extra", "written"),
    [
        (("gres", "gpu:a100:1"), ["#SBATCH --gres=gpu:a100:1"]),
        (("gpus-per-node", "a100:1"), ["#SBATCH --gpus-per-node=a100:1"]),
        (("gres", "disk:1"), ["#SBATCH --gpus-per-node=1", "#SBATCH --gres=disk:1"]),
    ],
)
def test_gpus_that_the_site_asks_for_in_its_words_are_asked_for_once(
    tmp_path: Path, extra: tuple[str, str], written: list[str]
) -> None:
    spec = JobSpec(gpus_per_task=1, extra=(extra,))

    text = script_text(tmp_path, spec, 1, job_name="cell", comment="grid-b")

    assert [line for line in text.splitlines() if line.startswith("#SBATCH --g")] == written


def test_slurm_fills_in_its_words_in_the_names_of_files_and_not_of_folders(tmp_path: Path) -> None:
    folder = tmp_path / "50%j it's (%t)"

    one, array = (script_text(folder, JobSpec(), n, job_name="c", comment="g") for n in (1, 2))

    escaped = str(folder).replace("%", "%%")
    assert f"#SBATCH --error={shlex.quote(f'{escaped}/%j_0_log.err')}\n" in one
    assert f"#SBATCH --error={shlex.quote(f'{escaped}/%A_%a_0_log.err')}\n" in array
    assert f"slurm.job_start {shlex.quote(str(folder))} || " in one


@pytest.mark.parametrize("name", ["plain", "50%j it's (%t) %A%a"])
def test_a_job_finds_its_call_by_its_number_and_runs_it(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    write_call(call_file(folder, "17_3"), Write(tmp_path / "effect"))

    job = {"SLURM_JOB_ID": "20", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}
    subprocess.run(
        [sys.executable, "-m", "slurm.job_start", str(folder)],
        env={**os.environ, **job, "SLURM_PROCID": "1"},
        cwd=Path(__file__).resolve().parents[2],
        check=True,
        capture_output=True,
        timeout=120,
    )

    assert (tmp_path / "effect").read_text() == "it ran"
    output, error = log_files(folder, "17_3", 1)
    assert output.name == "17_3_1_log.out"
    assert "Exiting after successful completion" in output.read_text()
    assert error.read_text() == ""


def test_a_job_whose_program_was_killed_leaves_a_mark_and_its_exit_code(tmp_path: Path) -> None:
    folder = tmp_path / "50%j it's (%t)"
    folder.mkdir()
    script = folder / "submission.sh"
    killed = JobSpec(setup=("srun() { return 137; }",))
    script.write_text(script_text(folder, killed, 1, job_name="cell", comment="grid-b"))

    assert subprocess.run(["bash", str(script)], check=False).returncode == 137

    assert failure_mark(folder).exists()
