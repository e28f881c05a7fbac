"""What a program of Slurm did not say is not taken for its answer; errors count by meaning."""

from pathlib import Path

import pytest

from slurm.commands import SlurmFull, SlurmRefused, SlurmSilent, SlurmUnclear, call

_POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit "
    "limit, user's size and/or time limits)"
)
_FAILED = "sbatch: error: Batch job submission failed: "


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs; sbatch prints the file `error`, scontrol the file `ping`."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "ping").write_text("Slurmctld(primary) at c1 is UP\n")
    for name, script in (
        ("sbatch", f"cat {tmp_path}/error >&2; exit 1"),
        ("scontrol", f"cat {tmp_path}/ping"),
    ):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return tmp_path


def kind_of(says: Path, text: str) -> type[Exception]:
    (says / "error").write_text(text + "\n")
    with pytest.raises((SlurmFull, SlurmRefused, SlurmSilent)) as caught:
        call("sbatch", "script", seconds=10)
    return caught.type


def test_a_program_that_a_signal_killed_gave_no_answer() -> None:
    with pytest.raises(SlurmSilent, match="sh was killed by signal 2 before it answered"):
        call("sh", "-c", "kill -INT $$", seconds=10)


@pytest.mark.parametrize(
    "text",
    [
        f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{_POLICY}",
        f"sbatch: error: AssocMaxCpuPerJobLimit\n{_POLICY}",
        f"sbatch: error: QOSMinGRES\n{_FAILED}Invalid qos specification",
        f"{_FAILED}Requested time limit is invalid (missing or exceeds some limit)",
        f"{_FAILED}Requested node configuration is not available",
        f"{_FAILED}Memory required by task is not available",
        f"{_FAILED}More processors requested than permitted",
        f"{_FAILED}User's group not permitted to use this partition",
        f"{_FAILED}Access/permission denied",
        "sbatch: unrecognized option '--gpus-for-free'",
    ],
)
def test_a_job_that_can_never_be_is_refused(says: Path, text: str) -> None:
    assert kind_of(says, text) is SlurmRefused


@pytest.mark.parametrize(
    "text",
    [
        f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{_POLICY}",
        f"sbatch: error: AssocGrpSubmitJobsLimit\n{_POLICY}",
        f"{_FAILED}Slurm temporarily unable to accept job, sleeping and retrying",
        _POLICY,
    ],
)
def test_a_limit_on_the_number_of_jobs_is_a_full_queue(says: Path, text: str) -> None:
    assert kind_of(says, text) is SlurmFull


@pytest.mark.parametrize(
    "text",
    [
        f"{_FAILED}Unable to contact slurm controller (connect failure)",
        f"{_FAILED}Socket timed out on send/recv operation",
        f"{_FAILED}Slurm backup controller in standby mode",
        f"{_FAILED}Invalid authentication credential",
        "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\n"
        "sbatch: error: fetch_config: DNS SRV lookup failed\n"
        "sbatch: fatal: Could not establish a configuration source",
        "sbatch: error: If munged is up, restart with --num-threads=10\n"
        'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2": '
        "No such file or directory\nsbatch: error: slurm_send_node_msg: authentication",
    ],
)
def test_a_controller_out_of_reach_is_silent_whatever_the_sentence(says: Path, text: str) -> None:
    assert kind_of(says, text) is SlurmSilent


@pytest.mark.parametrize(
    ("ping", "kind"),
    [
        ("Slurmctld(primary) at c1 is UP", SlurmUnclear),
        ("Slurmctld(primary) at c1 is DOWN", SlurmSilent),
    ],
)
def test_an_unknown_error_is_judged_by_whether_the_controller_is_up(
    says: Path, ping: str, kind: type[Exception]
) -> None:
    (says / "ping").write_text(f"{ping}\n")

    assert kind_of(says, f"{_FAILED}The moon is in the wrong house") is kind
