"""The batches of a run, on the device that trains."""

from collections.abc import Iterator
from pathlib import Path

from datasets.batches import LabelledBatch, UnlabelledBatch
from datasets.loader import BatchPlan, batches
from datasets.location import data_root
from datasets.opening import Dataset
from trainer.augment_on_device import labelled_batch, unlabelled_batch
from trainer.choices import Algorithm, Augment, Cache
from trainer.config import TrainConfig
from trainer.ranks import Ranks
from trainer.transfer import sent


def feed(
    config: TrainConfig,
    dataset: Dataset,
    ranks: Ranks,
    *,
    steps: range,
    num_channel_bits: int,
) -> Iterator[tuple[LabelledBatch, UnlabelledBatch | None]]:
    """This rank's batches of some steps, wherever they are augmented; the bits are the same.

    Args:
        config: of the run.
        dataset: opened.
        ranks: who shares the batch, and this one's device.
        steps: of the run.
        num_channel_bits: channel-dropout bits per image.
    """
    plan = BatchPlan(
        batch=config.batch,
        rank=ranks.rank,
        world_size=ranks.world_size,
        start=steps.start,
        stop=steps.stop,
        workers=config.run.loader_workers,
        num_channel_bits=num_channel_bits,
        unlabelled=config.method.algorithm is not Algorithm.supervised,
        on_device=augments_on_device(config.run.augment, ranks.device.type),
        cache=cache_folder(config) if config.run.cache is Cache.decoded else None,
    )
    for labelled, unlabelled in batches(dataset, config.data, seed=config.seed, plan=plan):
        other = None if unlabelled is None else unlabelled_batch(sent(unlabelled, ranks.device))
        yield labelled_batch(sent(labelled, ranks.device)), other


def augments_on_device(augment: Augment, device_type: str) -> bool:
    """Whether the device makes the views: `auto` says so of CUDA; on a CPU Pillow is faster."""
    if augment is Augment.auto:
        return device_type == "cuda"
    return augment is Augment.device


def cache_folder(config: TrainConfig) -> Path:
    """Where decoded images are kept; beside the dataset unless another place is given."""
    if config.run.cache_folder:
        return Path(config.run.cache_folder)
    root = data_root(config.data)
    return root.with_name(f"{root.name}.decoded")
