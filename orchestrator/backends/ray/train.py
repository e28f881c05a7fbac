"""A trial as the worker group of a Ray Train run; called inside the trial's own Ray actor."""

import tempfile
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ray import PlacementGroupID
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    remove_placement_group,
)

from datasets.files import atomic_write
from orchestrator.execution.attempt import check_trial_device, run_trial
from orchestrator.execution.watchdog import recorded_outcome
from orchestrator.failures import Failure, classify, memory_kill
from orchestrator.storage.open import root_of
from orchestrator.trial import Outcome, Trial
from trainer.hardware.gpu import DeviceError


class TrialFailed(RuntimeError):
    """Rank 0 failed; raised so that Ray Train ends the other ranks, which wait for it."""


def run_on_ranks(trial: Trial, *, in_this_process: bool = False) -> Outcome:
    """Train on the trial's ranks and say how it ended; a lost process is an outcome too.

    Only the files of the run directory count. The storage of Ray Train is a temporary folder, and
    its retries are off: whether a cell runs again depends on the class of the failure.

    Args:
        trial: what to run.
        in_this_process: Train's local mode. It saves four process starts and as many imports of
            torch, which take longer than a small cell on two cores; for one rank on a CPU only.
    """
    # Shows afterwards whether a lost worker group had begun an attempt.
    before = root_of(trial).newest_attempt(trial.key)
    with tempfile.TemporaryDirectory(prefix="train-", dir=trial.scratch) as storage:
        trainer = _Trainer(
            cast(Any, _worker),
            train_loop_config={
                "trial": trial.to_json(),
                "group": "" if in_this_process else f"{storage}/group",
            },
            torch_config=_CheckedTorchConfig(
                backend="nccl" if trial.gpus_per_rank else "gloo", trial_json=trial.to_json()
            ),
            scaling_config=_scaling(trial, in_this_process=in_this_process),
            run_config=RunConfig(
                name=f"{trial.key}-{uuid.uuid4().hex[:8]}",
                storage_path=storage,
                failure_config=FailureConfig(max_failures=0),
            ),
        )
        try:
            result = trainer.fit()
            return Outcome.from_json(str(cast(Any, result).return_value))
        except TrainingFailedError as error:
            return _outcome_of_lost_group(trial, before, error)
        except RayActorError:  # Train's controller was killed
            _free_group(Path(storage, "group"))
            raise


def _free_group(path: Path) -> None:
    """Free what a worker group held whose controller is gone.

    Train's own cleaner asks Ray's dashboard whether it is, which an own Ray lacks, so the next
    group of the cell would wait for ever for the same cores.
    """
    with suppress(OSError):
        remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(path.read_text())))


class _Trainer(TorchTrainer):
    """Train's trainer without the process, one per worker group, that hands out Ray's data sets."""

    def _create_default_callbacks(self) -> list[Any]:
        """Train's own list but for that."""
        entries = super()._create_default_callbacks()  # type: ignore[misc] # mypy sees Train v1
        return [entry for entry in entries if not isinstance(entry, DatasetsCallback)]


class _CheckedBackend(_TorchBackend):
    """Train's set-up of the process group, after a look at every rank's device.

    Without the look NCCL fails first, with words that do not say what is wrong with the machine.
    """

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Check, then set up."""
        worker_group.execute(check_trial_device, Trial.from_json(backend_config.trial_json))
        super().on_start(worker_group, backend_config)


@dataclass
class _CheckedTorchConfig(TorchConfig):
    """Train's settings of the process group, with the trial that it is for."""

    trial_json: str = ""

    @property
    def backend_cls(self) -> type[_CheckedBackend]:
        """The class that sets the group up."""
        return _CheckedBackend


def _scaling(trial: Trial, *, in_this_process: bool) -> ScalingConfig:
    """What the worker group asks of Ray."""
    if in_this_process:
        return ScalingConfig(num_workers=0, use_gpu=False)
    resources = {"CPU": float(trial.cpus_per_rank)}
    if trial.gpus_per_rank:
        resources["GPU"] = trial.gpus_per_rank
    return ScalingConfig(
        num_workers=trial.ranks,
        use_gpu=trial.gpus_per_rank > 0,
        resources_per_worker=resources,
    )


def _worker(config: dict[str, str]) -> str:
    """Run one rank of the trial, in a process of the worker group."""
    trial = Trial.from_json(config["trial"])
    if config["group"]:
        with suppress(OSError):  # on another machine there is no such folder
            group = cast(PlacementGroup, get_current_placement_group())
            atomic_write(Path(config["group"]), group.id.hex())
    trial.enter_cwd()
    outcome = run_trial(trial)
    if outcome.status == "failed" and trial.ranks > 1:
        is_device = outcome.failure == Failure.no_device.value
        raise (DeviceError if is_device else TrialFailed)(outcome.error_text)
    return outcome.to_json()


def _outcome_of_lost_group(trial: Trial, before: int, error: TrainingFailedError) -> Outcome:
    """The outcome of a worker group that is gone, from the files it left."""
    root = root_of(trial)
    number = root.newest_attempt(trial.key)
    devices = [cause for cause in _causes(error) if isinstance(cause, DeviceError)]
    if devices:
        return Outcome("failed", 0, Failure.no_device.value, str(devices[0]))
    killed = next(filter(None, (memory_kill(str(cause)) for cause in _causes(error))), "")
    if killed:  # before the files: the other ranks wrote only that they lost this one
        return Outcome("failed", number, Failure.out_of_memory.value, killed)
    if number == before:
        return Outcome("failed", 0, _class_of(error).value, f"before the start: {error}")
    died = Outcome("failed", number, _class_of(error).value, f"a worker process died: {error}")
    return recorded_outcome(root, trial.key, before) or died


def _class_of(error: TrainingFailedError) -> Failure:
    """The class of a group's failure.

    When one rank fails, the others fail because their peer is gone. So the class is that of a rank
    whose error says more than that; without one a process was lost.
    """
    if classify(error) is Failure.preempted:
        return Failure.preempted
    classes = [classify(cause) for cause in _causes(error)]
    causes = [failure for failure in classes if failure not in (Failure.node_lost, Failure.bug)]
    return causes[0] if causes else Failure.node_lost


def _causes(error: TrainingFailedError) -> list[Exception]:
    """What the ranks raised, or what stopped the group before they ran."""
    inner = list((getattr(error, "worker_failures", None) or {}).values())
    inner += [getattr(error, "controller_failure", None) or error]
    return [getattr(cause, "_base_exc", None) or getattr(cause, "cause", cause) for cause in inner]
