"""Calls Slurm's programs, and tells apart a silent controller, a full queue and a refusal."""

import os
import subprocess

# What clients print when the controller did not answer: the request may have been served.
_NO_ANSWER = (
    "Socket timed out",
    "Unable to contact slurm controller",
    "Connection refused",
    "Connection timed out",
    "Zero Bytes were transmitted",
    "Communication connection failure",
    "Unexpected message received",
    "Transport endpoint",
    "slurm_persist_conn_open",
    "Resource temporarily unavailable",
)
_FULL = (
    "SubmitJob",  # QOSMaxSubmitJobPerUserLimit, AssocMaxSubmitJobLimit and their kin
    "violates accounting/QOS policy",
    "temporarily unable to accept job",
)
_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")


class SlurmMissing(RuntimeError):
    """Slurm's programs are not installed here."""


class SlurmSilent(RuntimeError):
    """The controller did not answer; whether it acted is unknown."""


class SlurmFull(RuntimeError):
    """No more jobs may be submitted for now."""


class SlurmRefused(ValueError):
    """The controller refused, and would refuse the same request again."""


def call(*words: str, seconds: float = 60.0, keep_errors: bool = False) -> str:
    """Output of a client program.

    Args:
        words: the command.
        seconds: to wait for it.
        keep_errors: return its standard error, too.

    Raises:
        SlurmMissing: the program is not there.
        SlurmSilent: no answer in time.
        SlurmFull: a limit on the number of jobs.
        SlurmRefused: any other refusal, with the program's message.
    """
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise SlurmMissing(
            f"{words[0]} is not installed here. Start from a machine where Slurm's commands work "
            "(a login node)."
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmSilent(f"{words[0]} had no answer for {seconds:.0f} s") from None
    if done.returncode == 0:
        return done.stdout + (done.stderr.strip() if keep_errors else "")
    if done.returncode < 0:  # Ctrl-C in a terminal reaches this program, too
        raise SlurmSilent(f"{words[0]} was killed by signal {-done.returncode} before it answered")
    text = done.stderr.strip() or f"exit code {done.returncode}"
    if any(sign in text for sign in _NO_ANSWER):
        raise SlurmSilent(text)
    if any(sign in text for sign in _FULL):
        raise SlurmFull(text)
    raise SlurmRefused(f"{words[0]}: {text}")


def clean_environment() -> dict[str, str]:
    """This environment without the variables of a job that this process may run in.

    sbatch and srun read such variables as options: those of an outer job would change a new one.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_")) or name in _KEPT
    }
