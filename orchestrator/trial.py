"""A trial, which is a cell as it is sent to a worker, and the outcome that comes back."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Literal

from orchestrator.failures import Failure


@dataclass(frozen=True)
class Trial:
    """Everything a process needs to run a cell; plain data, sent as JSON.

    Attributes:
        key: the cell.
        config_json: its whole configuration.
        fingerprint: of that configuration.
        root: address of where runs and results lie; `storage.open.root_of` opens it.
        root_scratch: with a bucket, folder in which runs train; empty for each machine's default.
        backend: name of the back end whose pool runs it.
        stop_file: its existence asks the run to checkpoint and end.
        scratch: an existing folder for temporary files of the back end.
        published_attempt: newest attempt among the published rows; numbers go on from there.
        ranks: processes that train together.
        cpus_per_rank: cores that are reserved for a rank.
        cpus_beside_gpu: the same for a rank that trains on a GPU, see `on_gpus`.
        hang_minutes: a shorter time without progress is no hang; 0 switches the watchdog off.
        code: folder of the launch's copy of the code, for processes that start later; empty for
            the checkout itself.
        cwd: what relative paths of the configuration mean; empty: the process's own.
        git_commit: of the checkout, when the launch began.
        is_probe: its steps are timed and nothing is trained; the key is then of no cell.
    """

    key: str
    config_json: str
    fingerprint: str
    root: str
    backend: str
    stop_file: str
    scratch: str = ""
    root_scratch: str = ""
    published_attempt: int = 0
    ranks: int = 1
    cpus_per_rank: int = 1
    cpus_beside_gpu: int = 1
    gpus_per_rank: float = 0.0
    hang_minutes: float = 10.0
    code: str = ""
    cwd: str = ""
    git_commit: str | None = None
    git_dirty: bool | None = None
    is_probe: bool = False

    def on_gpus(self, gpus_per_rank: float) -> "Trial":
        """The trial with its GPUs, if any, and the cores that a rank needs beside them."""
        cpus = self.cpus_beside_gpu if gpus_per_rank else self.cpus_per_rank
        return replace(self, gpus_per_rank=gpus_per_rank, cpus_per_rank=cpus)

    def enter_cwd(self) -> None:
        """Let relative paths mean what they meant to the launch, where that folder exists."""
        with suppress(OSError):
            os.chdir(self.cwd or ".")

    def with_memory(self, memory: str) -> "Trial":
        """The trial on another rung of `run.memory`, which is no part of the fingerprint."""
        config = json.loads(self.config_json)
        config["run"]["memory"] = memory
        if memory == "offload":
            config["run"]["graph"] = "none"  # copies to the host cannot be captured
        text = json.dumps(config, sort_keys=True, separators=(",", ":"))
        return replace(self, config_json=text)

    def to_json(self) -> str:
        """As JSON, to be sent to another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Trial":
        """The trial that `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        status: "busy" when another process owns the run.
        attempt: its number; 0 when none was made.
        failure: value of a `Failure`, for failed attempts.
        error_text: one line for the user.
        next_memory: rung of `run.memory` for another attempt, after one that had too little memory.
        timing: of a probe, as JSON, see `execution/timing.py`.
        is_published: whether a row of this attempt is among the results.
    """

    status: Literal["done", "failed", "stopped", "busy"]
    attempt: int = 0
    failure: str | None = None
    error_text: str = ""
    best_miou_percent: float | None = None
    seconds: float | None = None
    is_published: bool = False
    next_memory: str = ""
    timing: str = ""

    @classmethod
    def lost(cls, text: str, attempt: int = 0) -> "Outcome":
        """The outcome of an attempt whose process died without writing one."""
        return cls("failed", attempt, failure=Failure.node_lost.value, error_text=text)

    def to_json(self) -> str:
        """As JSON, to be sent to another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Outcome":
        """The outcome that `to_json` wrote."""
        return cls(**json.loads(text))
