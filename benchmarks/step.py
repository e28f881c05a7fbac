"""One training step, ours beside the official one: `python -m benchmarks.step [key=value ...]`.

Both take the same batches with the same network, interleaved in one process on one core (or one
CUDA device); figures are CPU seconds (device seconds on CUDA) per step and the ratio of each round.
Settings: model, crop, batch, rounds, method, loss, device, precision.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import trainer.deeplab
from benchmarks import official_step
from datasets.loader import BatchPlan, batches
from datasets.opening import open_dataset
from trainer import determinism
from trainer.choices import Distance
from trainer.compose import compose
from trainer.config import TrainConfig
from trainer.methods.step import Networks
from trainer.objective import Objective
from trainer.ranks import Ranks, join
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
    given = DEFAULTS | dict(word.split("=", 1) for word in words)
    config = _config(given)
    if given["device"] == "cpu":
        torch.set_num_threads(1)
    ranks = join(config.run)
    data = _data(config, ranks, int(given["rounds"]) + 1)
    official = _official(config, ranks)
    determinism.engage(config)
    variants = {"official": official, "ours": _ours(config, ranks)}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number, (labelled, unlabelled) in enumerate(data):
        for name, step in variants.items():
            deterministic = name == "ours"
            torch.use_deterministic_algorithms(deterministic)
            torch.backends.cudnn.benchmark = not deterministic
            taken = _timed(lambda s=step, x=labelled, u=unlabelled: s(x, u), ranks.device)
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
    factor = 2 if given["method"] == "unimatch" else 1
    return compose(
        [
            f"model={given['model']}",
            f"method={given['method']}",
            f"loss={given['loss']}",
            f"data.crop={given['crop']}",
            f"optim.batch={int(given['batch']) // factor or 1}",
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
    bits = new_state(config, 21, ranks).student.num_channel_bits
    plan = BatchPlan(batch=config.batch, stop=steps, num_channel_bits=bits)
    found = batches(dataset, config.data, seed=0, plan=plan)
    return [(x.to(ranks.device), u.to(ranks.device) if u else u) for x, u in found]


Step = Callable[[Any, Any], None]


def _official(config: TrainConfig, ranks: Ranks) -> Step:
    """Contiguous memory, torch's interpolation, torch.optim, a gathered KL."""
    network = new_state(config, 21, ranks).student.to(memory_format=torch.contiguous_format)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    setting = {"algorithm": config.method.algorithm.value, "confidence": config.method.confidence}

    def step(labelled: Any, unlabelled: Any) -> None:
        own = trainer.deeplab.upsample
        trainer.deeplab.upsample = _torch_upsample
        try:
            loss, pairs = official_step.STEPS[setting["algorithm"]](
                network, labelled, unlabelled, tau=setting["confidence"]
            )
            for q, p, valid in pairs if config.loss.distance is not Distance.none else ():
                kind = config.loss.distance.value
                loss = loss + 0.5 * official_step.inter_pixel(q, p, valid, kind, 0.8, 4.0)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        finally:
            trainer.deeplab.upsample = own

    return step


def _torch_upsample(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """F.interpolate, as the official network calls it."""
    corners = True if mode == "bilinear" else None
    return functional.interpolate(x, size=size, mode=mode, align_corners=corners)


def _ours(config: TrainConfig, ranks: Ranks) -> Step:
    """The step of `trainer.loop`."""
    state, objective = new_state(config, 21, ranks), Objective.of(config, ranks)
    networks = Networks(state.student, None)

    def step(labelled: Any, unlabelled: Any) -> None:
        loss, _ = objective(networks, labelled, unlabelled, weight=1.0)
        loss.backward()
        state.descent.step(0.0)

    return step


def _timed(call: Callable[[], None], device: torch.device) -> float:
    """CPU seconds of this process, or seconds on the device."""
    if device.type == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1:])
