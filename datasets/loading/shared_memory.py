"""Shared memory of loader workers: what their batches take there, checked before they start.

torch hands every tensor of a worker over in /dev/shm. Docker gives 64 MB, which two workers of
recipe=voc exceed; a worker that finds none left dies in the middle of a run.
"""

import math
import shutil
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.augment.device_inputs import Axis, CropInputs
from datasets.config import DataConfig
from datasets.dataset import Dataset
from datasets.loading.batches import LabelledBatch, LabelledWindows
from datasets.loading.hint import PASTE_SCALES
from datasets.loading.loader import BatchPlan, batches
from datasets.loading.pasting import PastedWindows

SHARED = Path("/dev/shm")
_AHEAD = 2  # batches that torch lets each worker prepare
_IN_USE = 2  # batches that the process which trains still holds: the newest and the one before
_VALIDATION = 1.1  # images for validation are read ahead meanwhile; a tenth of a batch or less
_MIB = 2**20


def check_shared_memory(
    dataset: Dataset,
    config: DataConfig,
    *,
    seed: int,
    plan: BatchPlan,
    ranks_here: int,
    shared: Path = SHARED,
) -> None:
    """Refuse more loader workers than the machine's shared memory can serve.

    The first batch is made in this process to learn its size. Shards and buckets may be read in
    this process and, after a fork, in the workers.

    Args:
        dataset: opened.
        config: how crops are cut.
        seed: of the run.
        plan: of one rank.
        ranks_here: ranks of the run on this machine.
        shared: folder in which torch shares tensors.

    Raises:
        ValueError: the batches do not fit; says how many workers do.
        DataError: an image of the first batch is missing or broken.
    """
    if not plan.workers or plan.start >= plan.stop:
        return
    first = replace(plan, workers=0, stop=plan.start + 1)
    ((labelled, unlabelled),) = batches(dataset, config, seed=seed, plan=first)
    if plan.views.pasted_classes:
        labelled = _pasted_everywhere(labelled)
    one = int(largest_bytes((labelled, unlabelled), config) * _VALIDATION) * ranks_here
    needed, free = one * (_AHEAD * plan.workers + _IN_USE), free_bytes(shared)
    if needed > free:
        fitting = max(0, (free // one - _IN_USE) // _AHEAD)
        raise ValueError(
            f"{shared} has {free // _MIB} MiB free, and the loader's batches take up to "
            f"{-(-needed // _MIB)} MiB there (run.loader_workers={plan.workers}, {ranks_here} "
            f"ranks here). Use run.loader_workers={fitting}, or give the machine more (docker "
            "--shm-size=2g or --ipc=host)."
        )


def largest_bytes(value: Any, config: DataConfig) -> int:
    """Bytes of the tensors of a batch; of the parts of images, which vary, the most they can be.

    Args:
        value: a tensor, or tuples and dataclasses of tensors.
        config: how crops are cut.
    """
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, CropInputs):
        views, _, _, channels = value.pixels.shape
        scale = _smallest_scale(value, config)
        width, height = (
            _longest_part(axis, config.crop, scale) for axis in (value.columns, value.rows)
        )
        return views * channels * width * height + value.columns.nbytes + value.rows.nbytes
    if isinstance(value, PastedWindows):
        config = replace(config, scale_min=PASTE_SCALES[0][0], scales=(), scale_base=0)
    entries = value if isinstance(value, tuple) else ()
    if is_dataclass(value):
        entries = tuple(getattr(value, item.name) for item in fields(value))
    return sum(largest_bytes(entry, config) for entry in entries)


def _pasted_everywhere(
    labelled: LabelledBatch | LabelledWindows,
) -> LabelledBatch | LabelledWindows:
    """A batch with another image for each of its own; the first one of a run may have fewer."""
    if isinstance(labelled, LabelledBatch):
        return labelled
    inside = torch.empty_like(labelled.masks, dtype=torch.bool)
    which = torch.empty(len(inside), dtype=torch.int64)
    return replace(labelled, pasted=PastedWindows(labelled.windows, which, inside))


def _smallest_scale(value: CropInputs, config: DataConfig) -> float:
    """Smallest factor by which the images of a batch can be resized."""
    lowest = (config.scale_min, config.unlabelled_scale_min or config.scale_min)
    smallest = min(config.scales or lowest)
    if not config.scale_base:
        return smallest
    source = Axis._fields.index("source")
    longest = max(int(value.columns[source].max()), int(value.rows[source].max()))
    return smallest * config.scale_base / longest


def _longest_part(axis: Tensor, crop: int, scale: float) -> int:
    """Most pixels of an image that a crop can show along one axis, `CropInputs.columns` or rows."""
    whole = int(axis[Axis._fields.index("source")].max())
    # The smallest scale shows most; at the crop's border some pixels beyond it enter the sums.
    return max(crop, min(whole, math.ceil((crop + 4) / scale)))


def free_bytes(shared: Path = SHARED) -> int:
    """Free shared memory; 0 where the machine has none."""
    try:
        return shutil.disk_usage(shared).free
    except OSError:
        return 0
