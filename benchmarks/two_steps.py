"""The official training step and ours, on the same batches; and made-up batches of any size.

Imports neither Hydra nor a dataset: a machine with torch is enough.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

import trainer.network.deeplab
from benchmarks import official_step
from datasets.config import DataConfig
from datasets.loading.batches import LabelledBatch, UnlabelledBatch
from trainer.config.schema import (
    LossConfig,
    MethodConfig,
    ModelConfig,
    OptimConfig,
    PixelDistance,
    Precision,
    TrainConfig,
    Upsample,
)
from trainer.distributed import Ranks
from trainer.feed import to_device
from trainer.methods.interface import Position, StepInput
from trainer.network.deeplab import DeepLabV3Plus
from trainer.state import TrainState, new_state
from trainer.step.graph import step_of

Step = Callable[[Any, Any], None]
_SMALL = {"width": 4, "head_channels": 8, "low_level_channels": 4}
_LARGE = {"width": 64, "head_channels": 256, "low_level_channels": 48}
MODELS: dict[str, dict[str, Any]] = {
    "resnet8": {"blocks": (1, 1, 1, 1), **_SMALL},
    "resnet50": {"blocks": (3, 4, 6, 3), **_LARGE},
    "resnet101": {"blocks": (3, 4, 23, 3), **_LARGE},
    "efficientnet_lite0": {"family": "efficientnet_lite0"},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a step is timed on.

    Attributes:
        model: a key of MODELS; resnet8 is a narrow one for trials.
        batch: labelled images, and as many unlabelled ones.
        confidence: of pseudo-labels; 0 lets every pixel count.
    """

    model: str
    crop: int
    batch: int
    classes: int
    distance: PixelDistance = PixelDistance.kl
    precision: Precision = Precision.fp32
    upsample: Upsample = Upsample.nearest
    confidence: float = 0.0

    @property
    def config(self) -> TrainConfig:
        """The run whose step this is; omega holds every pixel, the dearest case."""
        model = ModelConfig(backbone=self.model, upsample=self.upsample, **MODELS[self.model])
        return TrainConfig(
            data=DataConfig(crop=self.crop, drawn=None),
            model=model,
            method=MethodConfig(confidence=self.confidence),
            loss=LossConfig(distance=self.distance, threshold=0.0),
            optim=OptimConfig(batch=self.batch, precision=self.precision),
        )


def made_up(case: Case, ranks: Ranks, *, seed: int, num_bits: int | None = None) -> tuple[Any, Any]:
    """A labelled and an unlabelled batch of noise, on the device.

    Args:
        case: says the size.
        ranks: says the device.
        seed: of the noise.
        num_bits: channel-dropout bits per image; by default those of the case's network.
    """
    generator = torch.Generator().manual_seed(seed)
    size = (case.batch, 3, case.crop, case.crop)

    def noise() -> Tensor:
        return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)

    def box(share: float) -> Tensor:
        inside = torch.zeros(case.batch, case.crop, case.crop, dtype=torch.bool)
        inside[:, : int(share * case.crop), : int(share * case.crop)] = True
        return inside

    if num_bits is None:
        with torch.device("meta"):  # without weights
            num_bits = DeepLabV3Plus(case.config.model, case.classes).num_channel_bits
    keep = torch.randint(0, 2, (2, case.batch, num_bits), generator=generator).bool()
    masks = torch.randint(0, case.classes, (size[0], *size[2:]), generator=generator)
    masks[:, :4] = 255
    ids = tuple(str(number) for number in range(case.batch))
    labelled = LabelledBatch(noise(), masks, keep[0], ids)
    strong, mixed = (noise(), noise()), (noise(), noise())
    boxes, padded = (box(0.5), box(0.4)), box(0.1)
    unlabelled = UnlabelledBatch(
        noise(), strong, padded, boxes, keep[1], noise(), mixed, padded, ids, ids
    )
    return to_device(labelled, ranks.device), to_device(unlabelled, ranks.device)


def official(config: TrainConfig, ranks: Ranks, num_classes: int) -> Step:
    """Contiguous memory, torch's interpolation, torch.optim, a gathered inter-pixel loss."""
    network = new_state(config, num_classes, ranks).networks["student"]
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    take = cast(Any, official_step.STEPS[config.method.algorithm])
    loss_config = config.loss

    def step(labelled: Any, unlabelled: Any) -> None:
        own = trainer.network.deeplab.upsample
        trainer.network.deeplab.upsample = _torch_upsample
        try:
            loss, pairs = take(network, labelled, unlabelled, tau=config.method.confidence)
            for q, p, valid in pairs if loss_config.distance is not PixelDistance.none else ():
                loss = loss + 0.5 * official_step.inter_pixel(
                    q, p, valid, loss_config.distance.value, loss_config.threshold, 4.0
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        finally:
            trainer.network.deeplab.upsample = own

    return step


def _torch_upsample(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """F.interpolate, as the official network calls it."""
    corners = True if mode == "bilinear" else None
    return functional.interpolate(x, size=size, mode=mode, align_corners=corners)


def ours(config: TrainConfig, ranks: Ranks, num_classes: int, *, lr: float = 0.0) -> Step:
    """The step of `trainer.loop`."""
    return stepping(config, ranks, new_state(config, num_classes, ranks), lr=lr)


def stepping(config: TrainConfig, ranks: Ranks, state: TrainState, *, lr: float) -> Step:
    """The same on a state one holds."""
    take = step_of(config, ranks, state)
    numbers = take.method.numbers(Position(0, 1, 1))

    def step(labelled: Any, unlabelled: Any) -> None:
        given = StepInput(state.networks, state.memory, labelled, unlabelled, numbers)
        take(given, weight=1.0, rate=lr)

    return step
