"""What the launch and the process that is connected to Ray (`driver.py`) send each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.failures import Failure
from orchestrator.options import LaunchOptions
from orchestrator.trial import Outcome, Trial

# What a Tune trial does: run the cell on Ray, or wait for the end of its job elsewhere.
Work = Literal["run", "watch"]


@dataclass(frozen=True)
class Connect:
    """The first message to the driver: which Ray to start or join, see `cluster.connect`."""

    options: LaunchOptions
    scratch: Path
    code: str


@dataclass(frozen=True)
class Submit:
    """A message to the driver: let Tune run or watch a cell. The last message is None: leave."""

    trial: Trial
    work: Work


@dataclass(frozen=True)
class Began:
    """A message to the launch: Ray had room for a trial, which runs now."""

    work: Work
    key: str


@dataclass(frozen=True)
class Death:
    """Why the process of a trial died, as far as Ray knows."""

    failure: Failure
    reason: str


@dataclass(frozen=True)
class Ended:
    """A message to the launch: how a trial ended."""

    work: Work
    key: str
    outcome: Outcome | Death


@dataclass(frozen=True)
class Broken:
    """The last message to the launch: this Ray is of no more use.

    The first message to the launch is a `cluster.Cluster`: Ray is ready. More of them follow when a
    joined Ray has gained or lost nodes.

    Attributes:
        reason: why.
        is_refusal: Ray said so before it was ready; it would say the same once more.
    """

    reason: str
    is_refusal: bool = False
