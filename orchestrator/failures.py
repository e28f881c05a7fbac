"""The classes of failure of an attempt, what follows each, and how often a cell is retried."""

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from datasets.errors import Unreachable
from trainer.config.schema import Memory

UNLIMITED = 10**9


class StaleAttempt(RuntimeError):
    """A newer attempt of the cell has begun or published; this one must not publish."""


class Failure(Enum):
    """Class of a failure, as it stands in the results."""

    preempted = "preempted"  # the machine was wanted elsewhere
    timed_out = "timed_out"  # the time limit of the job, which only jobs in Slurm have
    node_lost = "node_lost"  # a process vanished: killed, node down
    out_of_memory = "out_of_memory"
    hang = "hang"  # no progress for too long
    bad_data = "bad_data"
    bad_config = "bad_config"
    no_device = "no_device"  # a GPU that torch cannot use, on one machine
    bug = "bug"
    diverged = "diverged"  # NaN or infinite loss
    disk_full = "disk_full"
    store_lost = "store_lost"  # the object store failed for longer than its patience


@dataclass(frozen=True)
class Policy:
    """What follows a failure.

    Attributes:
        retries: further attempts; the count starts again whenever a checkpoint advanced, if
            `is_reset_by_progress`.
        ends_launch: nothing else would fare better, so no further cell starts.
        leaves_row: the failure says something about the cell, and is kept among the results.
        advice: what the user can do.
    """

    retries: int
    advice: str
    is_reset_by_progress: bool = False
    ends_launch: bool = False
    leaves_row: bool = True


POLICIES = {
    Failure.preempted: Policy(UNLIMITED, "Nothing: it goes on by itself."),
    Failure.timed_out: Policy(
        3, "Raise the time limit, or checkpoint more often.", is_reset_by_progress=True
    ),
    Failure.node_lost: Policy(
        5,
        "Look at the machine: something kills processes there (memory?).",
        is_reset_by_progress=True,
    ),
    Failure.out_of_memory: Policy(
        1,
        "Give the cell more ranks, which share its images, or a larger card; run.memory=recompute "
        "or offload takes less at the same bits. Lower optim.batch, data.crop or optim.precision "
        "make another run.",
    ),
    Failure.hang: Policy(2, "Look at the log and the network.", is_reset_by_progress=True),
    Failure.bad_data: Policy(0, "Repair the named file (python -m datasets verify)."),
    Failure.bad_config: Policy(0, "Correct the configuration."),
    Failure.no_device: Policy(
        0,
        "Repair torch or the driver on the named machine, or leave it out "
        "(slurm.extra=exclude=NODE); then launch again.",
        ends_launch=True,
        leaves_row=False,
    ),
    Failure.bug: Policy(0, "Read the traceback in the log; repair, then resume."),
    Failure.diverged: Policy(0, "Lower optim.lr, or look at the data of the named step."),
    Failure.store_lost: Policy(
        5,
        "Look at the object store; what is not yet in it stays in the scratch folder of its host.",
        is_reset_by_progress=True,
    ),
    Failure.disk_full: Policy(0, "Make room on the disk, then launch again.", ends_launch=True),
}

# By name and not by class: their modules import torch or Ray, which a plan must not load.
_BY_NAME = {
    "PreemptionError": Failure.preempted,
    "NCCLHangError": Failure.hang,
    "Hang": Failure.hang,
    "TimeoutExpired": Failure.hang,
    "DataError": Failure.bad_data,
    "DeviceError": Failure.no_device,
    "CheckpointError": Failure.bad_config,
    "NotDeterministicError": Failure.bad_config,
    "ValueError": Failure.bad_config,
    "Diverged": Failure.diverged,
    "OutOfMemoryError": Failure.out_of_memory,
    "MemoryError": Failure.out_of_memory,
    "ActorDiedError": Failure.node_lost,
    "NodeDiedError": Failure.node_lost,
    "DistBackendError": Failure.node_lost,
}


def classify(error: BaseException) -> Failure:
    """The class of an exception; an unknown one is a bug."""
    for failure, holds in _BY_SIGN:
        if holds(error):
            return failure
    names = (kind.__name__ for kind in type(error).__mro__)
    return next((_BY_NAME[name] for name in names if name in _BY_NAME), Failure.bug)


# What torch and its libraries say in a plain RuntimeError where memory was refused; the last one is
# oneDNN's, which says "a primitive descriptor" where it means that it has no such kernel.
_FULL_CARD = re.compile("CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED")
_FULL_HOST = re.compile(
    "DefaultCPUAllocator: |std::bad_alloc|could not create a primitive(?! descriptor)"
)


def next_memory(error: BaseException, memory: Memory) -> Memory | None:
    """The rung of `run.memory` with which a run that had too little memory may fit.

    Args:
        error: what ended it.
        memory: the rung it had.

    Returns:
        None where memory was not the matter, or where no rung is left. Without a card the inputs of
        blocks are in the host's memory in any case, so offloading them saves nothing.
    """
    if classify(error) is not Failure.out_of_memory:
        return None
    if memory is Memory.full:
        return Memory.recompute
    is_last = memory is Memory.offload or _is_full_host(error)
    return None if is_last else Memory.offload


# The beginning of what Ray's memory monitor says; lists of processes and advice follow.
_MEMORY_KILL = re.compile(
    r"[0-9]+ worker\(s\) were killed due to the node running low on memory.*(\nOOM kill reason.*)?"
)


_OF_CARD = re.compile("CUDA|CUDNN|CUBLAS", re.IGNORECASE)
_HOST_ADVICE = (
    "The host had too little memory: run fewer cells at once (concurrency=1), fewer ranks at once "
    "on a node (cpus_per_rank=N reserves more of its cores for each), or fewer run.loader_workers; "
    "in Slurm raise slurm.memory_gb. Smaller optim.batch or data.crop make another run."
)


def advice_on(failure: Failure, text: str) -> str:
    """What the user can do about a failure.

    Args:
        failure: its class.
        text: of the error; it says whether a card or the host had too little memory.
    """
    is_of_host = failure is Failure.out_of_memory and not _OF_CARD.search(text)
    return _HOST_ADVICE if is_of_host else POLICIES[failure].advice


def memory_kill(text: str) -> str:
    """Ray's own reason in one line, where its memory monitor killed a process; else empty."""
    said = _MEMORY_KILL.search(text)
    return " ".join(said[0].split()) if said else ""


def _is_full_disk(error: BaseException) -> bool:
    """Whether a write was refused for want of room; torch reports that as RuntimeError."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(sign in str(error) for sign in ("No space left on device", "Disk quota exceeded"))


def _is_lost_peer(error: BaseException) -> bool:
    """Whether a collective broke because another rank died (gloo raises plain RuntimeErrors)."""
    signs = (
        "Connection closed by peer",
        "Connection reset by peer",
        "Broken pipe",
        "gloo/transport",
    )
    is_of_kind = isinstance(error, RuntimeError | ConnectionError)
    return is_of_kind and any(sign in str(error) for sign in signs)


def _is_full_host(error: BaseException) -> bool:
    """Whether the system refused memory to this process."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    is_told = isinstance(error, RuntimeError) and bool(_FULL_HOST.search(str(error)))
    return is_told or isinstance(error, MemoryError)


def _is_full_card(error: BaseException) -> bool:
    """Whether a library of CUDA was refused memory; torch itself raises OutOfMemoryError."""
    return isinstance(error, RuntimeError) and bool(_FULL_CARD.search(str(error)))


_BY_SIGN: tuple[tuple[Failure, Callable[[BaseException], bool]], ...] = (
    (Failure.disk_full, _is_full_disk),
    (Failure.store_lost, lambda error: isinstance(error, Unreachable)),
    (Failure.node_lost, _is_lost_peer),
    (Failure.out_of_memory, _is_full_host),
    (Failure.out_of_memory, _is_full_card),
)


@dataclass
class Budget:
    """How often one cell may still be tried again.

    Attributes:
        used: retries spent per class since the last progress.
        step: newest checkpoint when a failure was last counted.
    """

    used: dict[Failure, int]
    step: int = -1

    @classmethod
    def fresh(cls) -> "Budget":
        """The budget of a cell at the start of a launch."""
        return cls({})

    def allows(self, failure: Failure, *, step: int | None, limit: int | None = None) -> bool:
        """Count one failure and say whether another attempt follows.

        Args:
            failure: what happened.
            step: newest checkpoint now; None without one.
            limit: most retries of any class but preemption; None for the class's own number.
        """
        policy = POLICIES[failure]
        if policy.is_reset_by_progress and step is not None and step > self.step:
            self.used.pop(failure, None)
            self.step = step
        self.used[failure] = self.used.get(failure, 0) + 1
        retries = policy.retries
        if limit is not None and retries not in (0, UNLIMITED):
            retries = limit
        return self.used[failure] <= retries
