"""`train`: one run from its configuration to its `Summary`; every launcher calls it."""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from datasets.dataset import Dataset, open_dataset
from datasets.errors import DataError
from datasets.files import atomic_write
from datasets.loading.shared_memory import check_shared_memory
from datasets.wording import quantity
from trainer import determinism
from trainer.checkpoint import Checkpoints
from trainer.config.fingerprint import config_json
from trainer.config.schema import TrainConfig
from trainer.determinism import digest
from trainer.distributed import Ranks, init_process_group
from trainer.evaluate import absent_classes
from trainer.feed import batch_plan
from trainer.loop import Loop, StepReport
from trainer.methods.interface import MethodContext, new_method
from trainer.network.pretrained import WeightsError
from trainer.run_log import RunLog, Summary
from trainer.schedule import Schedule
from trainer.state import TrainState, new_state
from trainer.step.graph import check_capture


def train(
    config: TrainConfig,
    folder: Path,
    *,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    heartbeat: Callable[[str], None] | None = None,
) -> Summary:
    """Train to the end, going on from the newest checkpoint in `folder` if there is one.

    Every rank calls it: alone, under torchrun, or in a process group that exists (Ray Train).
    Rank 0 writes config.json, metrics.jsonl, progress.json and checkpoints/ into `folder`.

    Args:
        config: the run.
        folder: for the files of this run alone.
        should_stop: called after each step; True on rank 0 saves that step and ends the call.
        on_progress: given the progress on rank 0, at most once a second.
        on_step: called after every step on every rank, before it is logged, scored or saved.
        heartbeat: called on every rank, see `trainer.loop.Loop`.

    Returns:
        The numbers of the run, the same on every rank.

    Raises:
        ValueError: the configuration does not fit the data or the machine (DataError,
            CheckpointError and WeightsError are ValueErrors).
        Diverged: the loss became NaN.
        OSError: the disk refused a checkpoint.
    """
    determinism.enable_determinism(config)  # first: NCCL and cuBLAS read their settings once
    ranks = init_process_group(config.run)
    dataset = open_dataset(config.data)
    _check_same_data(dataset, ranks)
    schedule = _checked_schedule(config, dataset, ranks)
    checkpoints = Checkpoints(folder, config, ranks, schedule, dataset.identity)
    state = _state(config, dataset, ranks, checkpoints.newest())
    run_log = RunLog(folder, schedule.total_steps, schedule.epochs, on_progress)
    if ranks.is_first:
        _open_folder(config, folder, checkpoints, run_log, state.step)
    loop = Loop(config, ranks, dataset, state, checkpoints, run_log, schedule, on_step, heartbeat)
    complete = state.step == schedule.total_steps or loop.run(should_stop)
    return _summary(loop, complete=complete)


def _state(
    config: TrainConfig, dataset: Dataset, ranks: Ranks, newest: dict[str, Any] | None
) -> TrainState:
    """The state before step 0, or that of the newest checkpoint."""
    unlabelled, fresh = len(dataset.split.unlabelled), newest is None
    state = new_state(config, dataset.num_classes, ranks, fresh=fresh, num_unlabelled=unlabelled)
    if newest is not None:
        state.unpack(newest)
    if state.pretrained_sha256 and not _is_same(state.pretrained_sha256, ranks):
        raise WeightsError(
            "The ranks of this run begin with different files of first weights; that of rank "
            f"{ranks.rank} has the sha256 {state.pretrained_sha256[:16]}. Bring the same file to "
            "all machines, or name one on a disk that all share with run.weights=FILE."
        )
    return state


def _is_same(digest: str, ranks: Ranks) -> bool:
    """Whether all ranks, which may run on several machines, have the same hexadecimal digest."""
    mine = torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8, device=ranks.device)
    return not bool((ranks.gather(mine) != mine).any())


def _check_same_data(dataset: Dataset, ranks: Ranks) -> None:
    """Raise a DataError on every rank where the ranks of several machines read other data."""
    if not _is_same(dataset.fingerprint + dataset.split.checksum, ranks):
        raise DataError(
            f"The ranks of this run read different images, masks or lists; on rank {ranks.rank} "
            f"{dataset.tree.root} has the fingerprint {dataset.fingerprint[:16]}. Bring the same "
            "data to all machines, or put them on a disk that all share."
        )


def _checked_schedule(config: TrainConfig, dataset: Dataset, ranks: Ranks) -> Schedule:
    """The stages of the run; raises a ValueError where batch, ranks or split do not fit."""
    if ranks.world_size > config.batch:
        raise ValueError(
            f"{quantity(ranks.world_size, 'rank')} share a batch of "
            f"{quantity(config.batch, 'image')}; use at most {config.batch} ranks, or a larger "
            "optim.batch."
        )
    check_capture(config.run, ranks)
    schedule = Schedule.of(
        config,
        num_labelled=len(dataset.split.labelled),
        num_unlabelled=len(dataset.split.unlabelled),
    )
    _check_loading(config, dataset, ranks, range(schedule.stages[0].epoch_steps))
    return schedule


def _check_loading(config: TrainConfig, dataset: Dataset, ranks: Ranks, steps: range) -> None:
    """Raise a ValueError if the batches of the loader's workers do not fit into shared memory."""
    method = new_method(MethodContext(config, ranks))
    views = method.views()
    hint = method.hint(method.memory()) if views.needs_hint else None
    plan = batch_plan(config, ranks, steps=steps, num_channel_bits=0, views=views, hint=hint)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world_size))
    check_shared_memory(dataset, config.data, seed=config.seed, plan=plan, ranks_here=here)


def _open_folder(
    config: TrainConfig, folder: Path, checkpoints: Checkpoints, run_log: RunLog, step: int
) -> None:
    """Write config.json and remove what an interrupted attempt left after step `step`."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "config.json", config_json(config))
    checkpoints.remove_leftovers()
    run_log.rewind(step)
    if config.run.tensorboard:
        run_log.open_events(step)


def _summary(loop: Loop, *, complete: bool) -> Summary:
    """The `Summary` of the run in its current state."""
    state, ranks = loop.state, loop.ranks
    best, last = state.best_epoch, max(state.scores, default=None)
    best_score = state.scores[best] if best is not None else None
    last_score = state.scores[last] if last is not None else None
    kept = loop.checkpoints.best()
    absent = absent_classes(last_score.confusion if last_score else ())
    return Summary(
        status="done" if complete else "stopped",
        epochs=loop.schedule.epochs_done(state.step),
        steps=state.step,
        best_miou_percent=best_score.miou_percent if best_score else None,
        best_epoch=best,
        last_miou_percent=last_score.miou_percent if last_score else None,
        last_epoch=last,
        best_iou_percent=best_score.iou_percent if best_score else (),
        last_iou_percent=last_score.iou_percent if last_score else (),
        best_confusion=best_score.confusion if best_score else (),
        last_confusion=last_score.confusion if last_score else (),
        seconds=state.seconds,
        peak_memory_bytes=_peak_memory(ranks),
        weights_sha256=digest(state.weights()) if complete else None,
        best_weights_sha256=kept.sha256 if kept else None,
        data_fingerprint=loop.dataset.fingerprint,
        split_checksum=loop.dataset.split.checksum,
        pretrained_sha256=state.pretrained_sha256,
        world_size=ranks.world_size,
        device=_device_name(ranks),
        absent_classes=tuple(loop.dataset.spec.class_names[label] for label in absent),
        absent_rule=loop.config.evaluation.absent.value if absent else None,
    )


def _peak_memory(ranks: Ranks) -> int:
    """Most memory this rank held, in bytes: of the GPU on CUDA, else of the process."""
    if ranks.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(ranks.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


def _device_name(ranks: Ranks) -> str:
    if ranks.device.type == "cuda":
        return torch.cuda.get_device_name(ranks.device)
    return "cpu"
