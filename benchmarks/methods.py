"""What a step of each method costs: `python -m benchmarks.methods [key=value ...]`.

Floating-point operations, kernels and the peak of memory are counted on tensors without numbers, at
the size of the tables. The operations stand beside those that the method's passes through its
networks imply (`PASSES`): what a step adds, such as a contrast of pixels, or a forward that nothing
asks for, lifts this ratio above 1. CPU time is of one thread, in rounds in turn, on a network half
as wide and a smaller crop. Settings: model, crop, batch, timed_crop, timed_batch, rounds (0 times
nothing), loss, and methods, separated by commas; by default those of `seamless`.
"""

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.counts import Counting, meta_operations
from benchmarks.memory import empty_batches, ends, peak_bytes
from benchmarks.table import in_turn, settings
from orchestrator.planning.memory import GIB
from sweeps.table import load_table
from trainer.config.compose import compose
from trainer.config.schema import ModelConfig, TrainConfig
from trainer.distributed import Ranks
from trainer.feed import map_tensors
from trainer.methods.interface import StepInput
from trainer.network.deeplab import DeepLabV3Plus
from trainer.network.heads import Head
from trainer.objective import Objective
from trainer.state import new_state
from trainer.step.eager import Step

CLASSES = 21
DEFAULTS = {
    "model": "resnet50",
    "crop": "321",
    "batch": "4",
    "timed_crop": "129",
    "timed_batch": "2",
    "rounds": "3",
    "loss": "none",
    "methods": "",
}


@dataclass(frozen=True)
class Passes:
    """Images per labelled image that a step sends through networks, by the method's description.

    Attributes:
        trained: forward and back.
        predicted: forward only.
        decoded: through the decoder alone, forward and back: features with channels dropped.
        probed: through the last convolutions alone, twice forward and once back to their input: the
            search for adversarial noise.
        embedded: through the embedding alone, forward and back.
        embedded_only: the same, forward only.
    """

    trained: int
    predicted: int = 0
    decoded: int = 0
    probed: int = 0
    embedded: int = 0
    embedded_only: int = 0

    def __str__(self) -> str:
        counts = {item.name: getattr(self, item.name) for item in fields(self)}
        return ", ".join(f"{number} {name}" for name, number in counts.items() if number)


# By algorithm. A labelled image comes with one unlabelled one, and that with a partner of CutMix.
PASSES = {
    "supervised": Passes(trained=1),
    # Labelled, weak and strong; the partner is only predicted.
    "fixmatch": Passes(trained=3, predicted=1),
    # Two strong views; labelled and weak features also with dropped channels.
    "unimatch": Passes(trained=4, predicted=1, decoded=2),
    # Student and teacher see labelled and weak images.
    "mean_teacher": Passes(trained=2, predicted=2),
    # The student sees labelled and pasted images, the teacher the two that were pasted.
    "cutmix_seg": Passes(trained=2, predicted=2),
    "mt_cutmix": Passes(trained=2, predicted=2),
    # The same with two teachers, whose decoders look for noise on all images of the student.
    "ps_mt": Passes(trained=2, predicted=4, probed=4),
    # Two networks, each of which learns and teaches.
    "cps": Passes(trained=4, predicted=4),
    # The teacher predicts the two images that are pasted, then it sees what the student learns
    # from: labelled and pasted images, both with their embeddings.
    "u2pl": Passes(trained=2, predicted=4, embedded=2, embedded_only=2),
    # Labelled images and two crops.
    "cac": Passes(trained=3),
    # As with CutMix; the teacher sees labelled images too.
    "ael": Passes(trained=2, predicted=3),
    # Labelled images only, those with predicted masks among them.
    "st_plusplus": Passes(trained=1),
    # Labelled, weak and strong images.
    "pc2seg_style": Passes(trained=3),
}


@dataclass(frozen=True)
class Cost:
    """What one step costs.

    Attributes:
        passes: of the method.
        flops: floating-point operations of convolutions and matrix products.
        implied: those of its passes.
        kernels: operations that launch one.
        peak_bytes: most memory that lives at once.
    """

    passes: Passes
    flops: float
    implied: float
    kernels: int
    peak_bytes: int


class Flops(TorchDispatchMode):
    """Adds up floating-point operations by torch's formulas: convolutions and matrix products.

    torch's own `FlopCounterMode` hooks modules too, and these hooks refuse `torch.autograd.grad`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def operations(config: TrainConfig, *, images: int) -> tuple[int, int]:
    """Floating-point operations and kernels of a step with so many labelled images."""
    ranks = Ranks(0, 1, torch.device("meta"))
    with torch.device("meta"):
        take = _stepping(config, ranks, images=images, change=lambda tensor: tensor)
    with meta_operations():
        take()  # makes what is made once
        with Counting() as counting, Flops() as flops:
            take()
    return flops.total, counting.counts.kernels


def implied(config: TrainConfig, *, images: int) -> float:
    """Floating-point operations of the passes that a method describes."""
    passes, units = PASSES[config.method.algorithm], _units(config.model, config.data.crop)
    return images * sum(getattr(passes, name) * unit for name, unit in units.items())


@cache
def _units(model: ModelConfig, crop: int) -> dict[str, float]:
    """Floating-point operations of one image of each kind of pass."""
    with torch.device("meta"):
        network = DeepLabV3Plus(model, CLASSES, (Head.embedding,))
        images = torch.empty(2, 3, crop, crop)  # batch normalisation needs two
    size = (crop, crop)
    low, high = (part.detach().requires_grad_() for part in network.backbone(images))
    joined = network.encode(images).detach().requires_grad_()

    def probed() -> None:
        network.classify(joined.detach(), size)
        torch.autograd.grad(network.classify(joined, size).sum(), joined)

    calls: dict[str, Callable[[], object]] = {
        "trained": lambda: network(images).sum().backward(),
        "predicted": lambda: network(images),
        "decoded": lambda: network.decode(low, high, size).sum().backward(),
        "probed": probed,
        "embedded": lambda: network.heads["embedding"](joined).sum().backward(),
        "embedded_only": lambda: network.heads["embedding"](joined),
    }
    units = {}
    for name, call in calls.items():
        with Flops() as counter:
            call()
        units[name] = counter.total / len(images)
    return units


def _stepping(
    config: TrainConfig, ranks: Ranks, *, images: int, change: Callable[[Tensor], Tensor]
) -> Callable[[], object]:
    """The last step of a run, on batches whose tensors went through `change`."""
    state = new_state(config, CLASSES, ranks, fresh=ranks.device.type != "meta")
    objective = Objective.of(config, ranks)
    bits = next(iter(state.networks.values())).num_channel_bits
    batches = empty_batches(
        objective.method.views(), images=images, crop=config.data.crop, num_bits=bits
    )
    labelled, unlabelled = map_tensors(batches, change)
    given = StepInput(
        state.networks,
        state.memory,
        labelled,
        unlabelled if config.method.facts.needs_unlabelled else None,
        objective.method.numbers(ends(config)[1]),
    )
    step = Step(objective, state, ranks)
    return lambda: step(given, weight=1.0, rate=0.0)


def _noise(tensor: Tensor) -> Tensor:
    """Pixels, classes, flags or numbers at random, of the shape and type of a tensor."""
    if tensor.dtype == torch.uint8:
        return torch.randint(0, 256, tensor.shape, dtype=torch.uint8)
    if tensor.dtype == torch.int64:
        return torch.randint(0, CLASSES, tensor.shape)
    if tensor.dtype == torch.bool:
        return torch.rand(tensor.shape) < 0.5
    return torch.rand(tensor.shape, dtype=tensor.dtype)


def cpu_seconds(configs: Mapping[str, TrainConfig], *, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a step of each run, one figure a round."""
    torch.set_num_threads(1)
    ranks = Ranks(0, 1, torch.device("cpu"))
    variants = {
        name: _stepping(config, ranks, images=config.batch, change=_noise)
        for name, config in configs.items()
    }
    return {column.name: column.values for column in in_turn(variants, rounds=rounds)}


def configured(
    method: str, given: Mapping[str, str], *, crop: str, batch: str, is_narrow: bool
) -> TrainConfig:
    """A run on VOC from random weights, with the method's own settings."""
    config = compose(
        [
            "recipe=voc",
            f"method={method}",
            f"model={given['model']}",
            f"loss={given['loss']}",
            f"data.crop={crop}",
            f"optim.batch={batch}",
            "method.batch_factor=1",
            "model.init=random",
            "run.device=cpu",
        ]
    )
    if not is_narrow:
        return config
    width, head, low = (
        getattr(config.model, name) // 2
        for name in ("width", "head_channels", "low_level_channels")
    )
    model = replace(config.model, width=width, head_channels=head, low_level_channels=low)
    return replace(config, model=model)


def table(costs: Mapping[str, Cost], times: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Lines of Markdown; ratios are to the first method, and to UniMatch* where it is there."""
    first, rival = next(iter(costs)), "unimatch_star" if "unimatch_star" in costs else ""
    yield (
        f"| method | images | TFLOP | of implied | x {first} | x UniMatch* | CPU x {first} | "
        "CPU x UniMatch* | GiB | kernels |"
    )
    yield "|---" * 10 + "|"
    for name, counted in costs.items():
        entries = [
            str(counted.passes),
            f"{counted.flops / 1e12:.2f}",
            f"{counted.flops / counted.implied:.2f}",
            *(f"{counted.flops / costs[b].flops:.2f}" if b else "-" for b in (first, rival)),
            *(_ratio(times, name, base) for base in (first, rival)),
            f"{counted.peak_bytes / GIB:.1f}",
            str(counted.kernels),
        ]
        yield f"| {name} | {' | '.join(entries)} |"


def _ratio(times: Mapping[str, Sequence[float]], name: str, base: str) -> str:
    """Median of the rounds' ratios, with the smallest and the largest."""
    if name not in times or base not in times:
        return "-"
    ratios = [a / b for a, b in zip(times[name], times[base], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main(words: Sequence[str]) -> None:
    """Print the table."""
    given = settings(words, DEFAULTS)
    every = dict.fromkeys(cell.method for cell in load_table("seamless").cells)
    methods = given["methods"].split(",") if given["methods"] else list(every)
    costs = {}
    for method in methods:
        config = configured(
            method, given, crop=given["crop"], batch=given["batch"], is_narrow=False
        )
        images = config.batch
        flops, kernels = operations(config, images=images)
        costs[method] = Cost(
            PASSES[config.method.algorithm],
            flops,
            implied(config, images=images),
            kernels,
            peak_bytes(config, classes=CLASSES, images=images),
        )
    times: dict[str, list[float]] = {}
    if rounds := int(given["rounds"]):
        crop, batch = given["timed_crop"], given["timed_batch"]
        narrow = {
            method: configured(method, given, crop=crop, batch=batch, is_narrow=True)
            for method in methods
        }
        times = cpu_seconds(narrow, rounds=rounds)
    print(
        f"{given['model']}, {given['batch']}+{given['batch']} images of {given['crop']}, loss "
        f"{given['loss']}; CPU: half as wide, {given['timed_batch']}+{given['timed_batch']} images "
        f"of {given['timed_crop']}\n"
    )
    for line in table(costs, times):
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
