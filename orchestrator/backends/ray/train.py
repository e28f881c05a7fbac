"""A trial as the worker group of a Ray Train run; called inside the trial's own Ray actor."""

import tempfile
import uuid
from typing import Any, cast

from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from orchestrator.execution.attempt import run_trial
from orchestrator.execution.watchdog import recorded_outcome
from orchestrator.failures import Failure, classify
from orchestrator.storage.open import root_of
from orchestrator.trial import Outcome, Trial


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
        trainer = TorchTrainer(
            cast(Any, _worker),
            train_loop_config={"trial": trial.to_json()},
            torch_config=TorchConfig(backend="nccl" if trial.gpus_per_rank else "gloo"),
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
    trial.enter_cwd()
    outcome = run_trial(trial)
    if outcome.status == "failed" and trial.ranks > 1:
        raise TrialFailed(outcome.error_text)
    return outcome.to_json()


def _outcome_of_lost_group(trial: Trial, before: int, error: TrainingFailedError) -> Outcome:
    """The outcome of a worker group that is gone, from the files it left."""
    root = root_of(trial)
    number = root.newest_attempt(trial.key)
    if number == before:
        return Outcome("failed", 0, _class_of(error).value, f"before the start: {error}")
    written = recorded_outcome(root, trial.key, before)
    if written is not None:
        return written
    return Outcome("failed", number, _class_of(error).value, f"a worker process died: {error}")


def _class_of(error: TrainingFailedError) -> Failure:
    """The class of a group's failure.

    When one rank fails, the others fail because their peer is gone. So the class is that of a rank
    whose error says more than that; without one a process was lost.
    """
    if classify(error) is Failure.preempted:
        return Failure.preempted
    inner = getattr(error, "worker_failures", None) or {}
    classes = [classify(getattr(cause, "_base_exc", cause)) for cause in inner.values()]
    causes = [failure for failure in classes if failure not in (Failure.node_lost, Failure.bug)]
    return causes[0] if causes else Failure.node_lost
