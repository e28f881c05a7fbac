"""The limits and settings of a Slurm cluster, as its controller reports them."""

import getpass
import re
from dataclasses import dataclass

from slurm.commands import SlurmMissing, SlurmRefused, SlurmSilent, call


@dataclass(frozen=True)
class Site:
    """Facts of a cluster.

    Attributes:
        max_array_size: array indices stay below it.
        max_submitted: jobs this user may have in the queue; 0: no limit known.
        forgets_seconds: so long squeue still lists a finished job.
        can_requeue: whether jobs may be started again by default.
    """

    version: str
    cluster: str
    max_array_size: int
    max_submitted: int
    forgets_seconds: int
    has_accounting: bool
    can_requeue: bool


def site() -> Site:
    """Ask the controller.

    Raises:
        SlurmMissing: no Slurm here.
        SlurmSilent: the controller does not answer.
    """
    config = read_config(call("scontrol", "show", "config"))
    has_accounting = config.get("AccountingStorageType", "").endswith("slurmdbd")
    return Site(
        version=config.get("SLURM_VERSION", "unknown"),
        cluster=config.get("ClusterName", "unknown"),
        max_array_size=_number(config.get("MaxArraySize", "1001")),
        max_submitted=_max_submitted() if has_accounting else 0,
        forgets_seconds=_number(config.get("MinJobAge", "300")),
        has_accounting=has_accounting,
        can_requeue=_number(config.get("JobRequeue", "1")) == 1,
    )


def gpu_types(partition: str = "") -> set[str]:
    """The kinds of GPUs of a partition's nodes, as the site names them; "" for one without a name.

    Raises:
        SlurmMissing, SlurmSilent, SlurmRefused: no Slurm here, no answer, or no such partition.
    """
    chosen = ["-p", partition] if partition else []
    listed = call("sinfo", "-h", "-o", "%G", *chosen)
    # Such as gpu:a100:4(S:0-1),shard:8; a count alone has no name.
    names = re.findall(r"\bgpu(?::([^:,()\s]+))?(?::\d+)?", listed)
    return {"" if name.isdecimal() else name for name in names}


def read_config(text: str) -> dict[str, str]:
    """The `Name = value` lines of `scontrol show config`."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _number(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits.group()) if digits else 0


def _max_submitted() -> int:
    """The least limit among this user's associations; 0 without one."""
    try:
        answer = call(
            "sacctmgr", "-n", "-P", "show", "assoc", f"user={getpass.getuser()}",
            "format=MaxSubmitJobs",
        )  # fmt: skip
    except (SlurmMissing, SlurmRefused, SlurmSilent):
        return 0
    return min((int(word) for word in answer.split() if word.isdigit()), default=0)
