"""The batches of a run: loaded, moved to the device that trains, and augmented there if wanted."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from datasets.dataset import Dataset
from datasets.loading.batches import (
    LabelledBatch,
    LabelledWindows,
    UnlabelledBatch,
    UnlabelledWindows,
    ViewPlan,
)
from datasets.loading.device import labelled_batch, unlabelled_batch
from datasets.loading.hint import Hint
from datasets.loading.loader import BatchPlan, batches
from datasets.location import data_root
from trainer.config.schema import Augment, Cache, TrainConfig
from trainer.distributed import Ranks

Batch = tuple[LabelledBatch, UnlabelledBatch | None]
Loaded = TypeVar("Loaded")
Moved = TypeVar("Moved")


def to_device(value: Moved, device: torch.device) -> Moved:
    """A tensor, or a dataclass or tuple of tensors, on `device`.

    To CUDA through pinned memory: a copy from pageable memory makes the host wait until the device
    has finished everything before it. torch keeps a pinned block until its copy is done.
    """

    def move(tensor: Tensor) -> Tensor:
        if not tensor.numel():
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        if device.type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)

    moved: Moved = map_tensors(value, move)
    return moved


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same value with `change` applied to every tensor in it."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        inner = {
            item.name: map_tensors(getattr(value, item.name), change) for item in fields(value)
        }
        return replace(value, **inner)
    if isinstance(value, tuple):
        return tuple(map_tensors(entry, change) for entry in value)
    return value


def feed(config: TrainConfig, dataset: Dataset, ranks: Ranks, plan: BatchPlan) -> Iterator[Batch]:
    """This rank's labelled and unlabelled batches of some steps, on its device.

    Whether the views are made by the loader's workers or by the device, the bytes are the same.

    Args:
        config: of the run.
        dataset: opened.
        ranks: those that share each batch; says which is this one and its device.
        plan: which steps; made by `batch_plan`.
    """
    loaded = batches(dataset, config.data, seed=config.seed, plan=plan)
    finish = partial(_on_device, device=ranks.device)
    if ranks.device.type == "cuda":
        stream = torch.cuda.Stream(ranks.device)  # type: ignore[no-untyped-call]
        yield from one_ahead(loaded, finish, SideStream(stream))
    else:
        yield from map(finish, loaded)


_UNIMATCH = ViewPlan()


def batch_plan(
    config: TrainConfig,
    ranks: Ranks,
    *,
    steps: range,
    num_channel_bits: int,
    views: ViewPlan = _UNIMATCH,
    hint: Hint | None = None,
) -> BatchPlan:
    """What this rank loads.

    Args:
        config: of the run.
        ranks: those that share each batch.
        steps: optimiser steps, counted from 0 over the whole run.
        num_channel_bits: channel-dropout bits per image, where the views need them.
        views: which views are made.
        hint: of the epoch in which the steps lie, where the views need one.
    """
    return BatchPlan(
        batch=config.batch,
        rank=ranks.rank,
        world_size=ranks.world_size,
        start=steps.start,
        stop=steps.stop,
        workers=config.loader_workers(ranks.device.type),
        num_channel_bits=num_channel_bits if views.channel_bits else 0,
        views=views,
        hint=hint,
        unlabelled=config.method.facts.needs_unlabelled,
        on_device=augments_on_device(config.run.augment, ranks.device.type),
        cache=decoded_cache(config),
    )


def _on_device(
    loaded: tuple[LabelledBatch | LabelledWindows, UnlabelledBatch | UnlabelledWindows | None],
    device: torch.device,
) -> Batch:
    """The batch of a step, with all its views."""
    labelled, unlabelled = loaded
    other = None if unlabelled is None else unlabelled_batch(to_device(unlabelled, device))
    return labelled_batch(to_device(labelled, device)), other


@dataclass(frozen=True)
class SideStream:
    """A CUDA stream beside the one on which a step runs.

    Attributes:
        stream: None where the device has no streams; then every call is done when it returns.
    """

    stream: torch.cuda.Stream | None

    def launch(self, call: Callable[[], Moved]) -> tuple[Moved, torch.cuda.Event | None]:
        """Start `call` on this stream; what it gave, and the event at which that is complete."""
        with torch.cuda.stream(self.stream):
            value = call()
        return value, None if self.stream is None else self.stream.record_event()

    def join(self, value: Moved, complete: torch.cuda.Event | None) -> Moved:
        """Let the current stream use what was launched; the host does not wait."""
        if self.stream is not None and complete is not None:
            current = torch.cuda.current_stream(self.stream.device)
            current.wait_event(complete)
            # Else memory that the step gives back could be filled by this stream too early.
            map_tensors(value, partial(_recorded, stream=current))
        return value


def _recorded(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    tensor.record_stream(stream)
    return tensor


def one_ahead(
    loaded: Iterable[Loaded], finish: Callable[[Loaded], Moved], side: SideStream
) -> Iterator[Moved]:
    """`finish` of each batch, in order; that of the next one is launched before the step of this.

    So the device copies and augments a batch during the step before.
    """
    ready: tuple[Moved, torch.cuda.Event | None] | None = None
    for batch in loaded:
        launched = side.launch(partial(finish, batch))
        if ready is not None:
            yield side.join(*ready)
        ready = launched
    if ready is not None:
        yield side.join(*ready)


def augments_on_device(augment: Augment, device_type: str) -> bool:
    """Whether the device makes the views; `auto` does so on CUDA, as Pillow is faster on a CPU."""
    if augment is Augment.auto:
        return device_type == "cuda"
    return augment is Augment.device


def decoded_cache(config: TrainConfig) -> Path | None:
    """Where a run keeps decoded images; None where it decodes them every time."""
    return cache_folder(config) if config.run.cache is Cache.decoded else None


def cache_folder(config: TrainConfig) -> Path:
    """Folder of decoded images: `run.cache_folder`, by default beside the dataset."""
    if config.run.cache_folder:
        return Path(config.run.cache_folder)
    root = data_root(config.data)
    return root.with_name(f"{root.name}.decoded")
