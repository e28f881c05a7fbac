"""What runs inside a job: its number and rank, its signals, its next start, and its other tasks."""

import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from slurm.commands import SlurmMissing, SlurmRefused, SlurmSilent, call

WARNING = signal.SIGUSR2  # what submitit asks Slurm to send ahead of the time limit
_MEETING_SECONDS = 600.0
_TRIES = 10  # to reach a controller that is away


@dataclass(frozen=True)
class JobContext:
    """Which job, which start of it, and which of its tasks this process is."""

    job_id: str
    restart: int
    rank: int
    num_tasks: int
    local_rank: int

    @classmethod
    def from_environment(cls) -> "JobContext":
        """As Slurm says."""
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        return cls(
            job_id=f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"],
            restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            rank=int(os.environ.get("SLURM_PROCID", "0")),
            num_tasks=int(os.environ.get("SLURM_NTASKS", "1")),
            local_rank=int(os.environ.get("SLURM_LOCALID", "0")),
        )


class Signals:
    """Remembers which signal asked the job to end.

    A handler only notes the signal: work inside a handler meets half-changed state.

    Attributes:
        received: "" until then; "SIGUSR2" is a warning after which the job should requeue itself,
            "SIGTERM" comes from preemption without warning, from scancel or from the time limit.
    """

    def __init__(self) -> None:
        self.received = ""

    def listen(self) -> "Signals":
        """Take the signals over, also from submitit."""
        for number in (WARNING, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        # Sent together with SIGTERM, to jobs that may be suspended.
        signal.signal(signal.SIGCONT, lambda number, frame: None)
        return self

    @property
    def asked(self) -> bool:
        """Whether the job shall end."""
        return bool(self.received)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # The warning stays the reason when SIGTERM follows it.
        self.received = self.received or signal.Signals(number).name


def requeue(job_id: str, received: str) -> str:
    """See to it that a job that stopped at a signal goes on later.

    After a warning that is ours to ask for. SIGTERM alone may mean a preemption with a time of
    grace (the job still counts as running, and one that ends now would not be started again), a
    preemption without (Slurm requeues by itself), or a person's scancel (nobody shall).

    Args:
        job_id: of this job.
        received: the signal.

    Returns:
        Empty when the job will start again or shall not; else why it cannot.
    """
    if received != WARNING.name and _state(job_id) != "RUNNING":
        return ""
    return _requeue(job_id)


def rename(job_id: str, name: str) -> None:
    """Give a running job a name of its own; that it fails does not matter."""
    try:
        call("scontrol", "update", f"JobId={job_id}", f"JobName={name}", seconds=10)
    except (SlurmMissing, SlurmRefused, SlurmSilent):
        return


def rendezvous(here: JobContext, folder: Path) -> dict[str, str]:
    """The environment by which torch.distributed joins the tasks of this start of the job.

    Task 0 takes a port that is free on its own host, and says so in a file.

    Args:
        here: this task.
        folder: seen by all tasks.

    Raises:
        TimeoutError: task 0 never said anything.
    """
    step = os.environ.get("SLURM_STEP_ID", "0")
    path = folder / f"meeting-{here.job_id}-{here.restart}-{step}.json"
    if here.rank == 0:
        part = path.with_suffix(".tmp")
        part.write_text(json.dumps({"host": socket.gethostname(), "port": _free_port()}))
        part.replace(path)
    address = _read_soon(path)
    return {
        "MASTER_ADDR": str(address["host"]),
        "MASTER_PORT": str(address["port"]),
        "RANK": str(here.rank),
        "WORLD_SIZE": str(here.num_tasks),
        "LOCAL_RANK": str(here.local_rank),
    }


def _state(job_id: str) -> str:
    """Slurm's word for this job now; empty without an answer."""
    try:
        return call("squeue", "-h", "-j", job_id, "-o", "%T", seconds=30).strip()
    except (SlurmMissing, SlurmRefused, SlurmSilent):
        return ""


def _requeue(job_id: str) -> str:
    """Ask Slurm to start this job again; returns what went wrong, or nothing."""
    problem = ""
    for _ in range(_TRIES):
        try:
            call("scontrol", "requeue", job_id, seconds=30)
        except SlurmSilent as silent:
            problem = str(silent)
            time.sleep(3.0)
        except (SlurmRefused, SlurmMissing) as error:
            return str(error)
        else:
            return ""
    return problem


def _read_soon(path: Path) -> dict[str, str | int]:
    """The contents of a file that another task writes."""
    give_up = time.monotonic() + _MEETING_SECONDS
    while True:
        try:
            facts: dict[str, str | int] = json.loads(path.read_text())
        except OSError:
            if time.monotonic() > give_up:
                raise TimeoutError(f"Task 0 never wrote {path}; is that folder shared?") from None
            time.sleep(0.1)
        else:
            return facts


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("", 0))
        return int(server.getsockname()[1])
