"""What must hold before the first worker starts: data, room on the disk, resources."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from datasets.opening import open_dataset
from orchestrator.plan import PlannedCell
from trainer.config import TrainConfig
from trainer.schedule import steps_per_epoch

_CHECKPOINT_FILES = 4  # newest two, the best one, and the one being written


def check_data(cells: Iterable[PlannedCell]) -> None:
    """Open every distinct dataset and split once; drawn scenes are drawn here, not in a worker.

    Raises:
        ValueError: of the first cell whose data is missing, broken or too little; DataError too.
    """
    opened = {}
    for cell in cells:
        data = cell.config.data
        try:
            if data not in opened:
                opened[data] = open_dataset(data)
            split = opened[data].split
            steps_per_epoch(
                cell.config,
                num_labelled=len(split.labelled),
                num_unlabelled=len(split.unlabelled),
            )
        except ValueError as error:
            raise ValueError(f"Cell {cell.key}: {error}") from error


def check_disk(root: Path, cells: Iterable[PlannedCell], running: int) -> None:
    """Look for room for the checkpoints of the cells that run at once.

    Raises:
        OSError: there is not enough; says how much is missing.
    """
    root.mkdir(parents=True, exist_ok=True)
    needs = sorted((_bytes_of(cell.config) for cell in cells), reverse=True)
    needed = sum(needs[:running])
    free = shutil.disk_usage(root).free
    if free < needed:
        raise OSError(
            28,
            f"{root} has {free / 2**20:.0f} MiB free; the checkpoints of {running} cells at once "
            f"need about {needed / 2**20:.0f} MiB. Make room, or choose another root=DIR",
        )


def _bytes_of(config: TrainConfig) -> int:
    """Room for one run's checkpoints: weights and momentum in fp32, and a second set for EMA."""
    # 22 M parameters outside the bottlenecks and 1.1 M in each, at the width of ResNet-50.
    layers = 22e6 + 1.1e6 * sum(config.model.blocks)
    parameters = layers * (config.model.width / 64) ** 2
    sets = 3 if config.method.teacher.value == "ema" else 2
    return int(parameters * 4 * sets * _CHECKPOINT_FILES)
