"""One training step, ours beside the official one: `python -m benchmarks.step [key=value ...]`.

Both take the same batches with the same network, interleaved in one process on one core (or one
CUDA device); figures are CPU seconds (device seconds on CUDA) per step and the ratio of each round.
Settings: model, crop, batch, rounds, method, loss, device, precision.
"""

import statistics
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from benchmarks.table import seconds as timed
from benchmarks.table import settings
from benchmarks.two_steps import official, ours
from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches
from trainer import determinism
from trainer.config.compose import compose
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks, init_process_group
from trainer.feed import to_device
from trainer.state import new_state

DEFAULTS = {
    "model": "resnet50",
    "crop": "161",
    "batch": "2",
    "rounds": "3",
    "method": "unimatch",
    "loss": "kl",
    "device": "cpu",
    "precision": "fp32",
}


def main(words: list[str]) -> None:
    """Print the table."""
    given = settings(words, DEFAULTS)
    config = _config(given)
    if given["device"] == "cpu":
        torch.set_num_threads(1)
    ranks = init_process_group(config.run)
    data = _data(config, ranks, int(given["rounds"]) + 1)
    determinism.enable_determinism(config)
    variants = {"official": official(config, ranks, 21), "ours": ours(config, ranks, 21)}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number, (labelled, unlabelled) in enumerate(data):
        for name, step in variants.items():
            deterministic = name == "ours"
            torch.use_deterministic_algorithms(deterministic)
            torch.backends.cudnn.benchmark = not deterministic
            taken = timed(lambda s=step, x=labelled, u=unlabelled: s(x, u), ranks.device.type)
            if number:  # the first round warms up
                seconds[name].append(taken)
    ratios = [a / b for a, b in zip(seconds["official"], seconds["ours"], strict=True)]
    print(
        f"{given['model']} crop {given['crop']} batch {given['batch']}+{given['batch']} "
        f"{given['method']} + {given['loss']}, {ranks.device}, {given['precision']}"
    )
    for name, values in seconds.items():
        print(
            f"{name:9} {statistics.median(values):8.3f} s  [{min(values):.3f}, {max(values):.3f}]"
        )
    print(f"ratio     {statistics.median(ratios):8.2f}    [{min(ratios):.2f}, {max(ratios):.2f}]")
    if ranks.device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def _config(given: dict[str, str]) -> TrainConfig:
    """A run on drawn images of the size of photographs."""
    return compose(
        [
            f"model={given['model']}",
            f"method={given['method']}",
            f"loss={given['loss']}",
            f"data.crop={given['crop']}",
            f"optim.batch={given['batch']}",
            "method.batch_factor=1",
            "optim.sampler_ranks=1",
            f"optim.precision={given['precision']}",
            f"run.device={given['device']}",
            f"data.root={Path(mkdtemp()) / 'data'}",
            "data.drawn.width=500",
            "data.drawn.height=375",
            "data.drawn.num_train=24",
            "data.drawn.num_val=2",
            "data.drawn.num_classes=21",
            "data.split=1of2",
        ]
    )


def _data(config: TrainConfig, ranks: Ranks, steps: int) -> list[Any]:
    """The batches of some steps, on the device."""
    dataset = open_dataset(config.data)
    bits = new_state(config, 21, ranks).networks["student"].num_channel_bits
    plan = BatchPlan(batch=config.batch, stop=steps, num_channel_bits=bits)
    found = batches(dataset, config.data, seed=0, plan=plan)
    return [(to_device(x, ranks.device), to_device(u, ranks.device) if u else u) for x, u in found]


if __name__ == "__main__":
    main(sys.argv[1:])
