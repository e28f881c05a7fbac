"""Calls Slurm's programs, and tells apart a silent controller, a full queue and a refusal.

An error is judged by what it is about and not by its sentence: versions and sites word them anew.
"""

import os
import re
import subprocess

# What an error is about, in the words of any of its sentences. The number of jobs: this passes.
_COUNT = re.compile(
    "SubmitJob"  # QOSMaxSubmitJobPerUserLimit, AssocMaxSubmitJobLimit and their kin
    "|unable to accept job"
)
# The way to the controller, or the controller itself: the request may have been served.
_WAY = re.compile(
    "timed out|unable to contact|connect|communicat|socket|transport|transmitted|persist"
    "|unexpected message|temporarily unavailable|standby|shutting down|no route|unreachable"
    "|munge|authenticat|credential|\\bdns\\b|resolve|unknown host|configuration source",
    re.IGNORECASE,
)
# What the job asks for. Slurm names limits in one word, such as QOSMaxWallDurationPerJobLimit; at a
# submission all of them but the number of jobs are about this job alone.
_JOB = re.compile(
    r"\b[A-Z]\w*[a-z]\w*(?:Limit|Per[A-Z]\w*)\b"
    r"|(?i:invalid|illegal|unrecognized|unsupported|denied|exceed|not (?:permitted|allowed|valid)"
    r"|more \w+ requested|required by task|configuration is not available|no such file)"
)
_COUNT_OR_JOB = re.compile("violates accounting/QOS policy")  # where no limit is named
_PING_SECONDS = 60.0
_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")


class SlurmMissing(RuntimeError):
    """Slurm's programs are not installed here.

    Args:
        program: one that is missing.
    """

    def __init__(self, program: str) -> None:
        super().__init__(
            f"{program} is not installed here. Start from a machine where Slurm's commands work "
            "(a login node)."
        )


class SlurmSilent(RuntimeError):
    """The controller did not answer; whether it acted is unknown."""


class SlurmFull(RuntimeError):
    """No more jobs may be submitted for now."""


class SlurmRefused(ValueError):
    """The controller refused, and would refuse the same request again."""


class SlurmUnclear(SlurmRefused):
    """The controller works but refused for a reason that is unknown here; it may pass."""


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
        SlurmRefused: a refusal for good, with the program's message.
        SlurmUnclear: any other refusal.
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
        raise SlurmMissing(words[0]) from None
    except subprocess.TimeoutExpired:
        raise SlurmSilent(f"{words[0]} had no answer for {seconds:.0f} s") from None
    if done.returncode == 0:
        return done.stdout + (done.stderr.strip() if keep_errors else "")
    if done.returncode < 0:  # Ctrl-C in a terminal reaches this program, too
        raise SlurmSilent(f"{words[0]} was killed by signal {-done.returncode} before it answered")
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    raise _error_of(words[0], "; ".join(line.strip() for line in lines))


def _error_of(program: str, text: str) -> Exception:
    """The error that a program's message means: whether it can ever pass, and whether all is down.

    Args:
        program: that failed.
        text: its message.
    """
    for about, kind in _KINDS:
        if about.search(text):
            return kind(f"{program}: {text}" if kind is SlurmRefused else text)
    # Sites and versions have sentences of their own, also for a controller that is away.
    return SlurmUnclear(f"{program}: {text}") if _controller_is_up() else SlurmSilent(text)


_KINDS = (
    (_COUNT, SlurmFull),
    (_WAY, SlurmSilent),
    (_JOB, SlurmRefused),
    (_COUNT_OR_JOB, SlurmFull),
)


def _controller_is_up() -> bool:
    """Whether a controller answers; also where that cannot be asked."""
    try:
        done = subprocess.run(
            ["scontrol", "ping"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PING_SECONDS,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return True
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and bool(re.search(r"\bUP\b", done.stdout))


def clean_environment() -> dict[str, str]:
    """This environment without the variables of a job that this process may run in.

    sbatch and srun read such variables as options: those of an outer job would change a new one.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_")) or name in _KEPT
    }
