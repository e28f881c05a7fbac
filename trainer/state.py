"""The state of a run between two steps: student, EMA teacher, momentum, scores; and its updates.

A checkpoint is exactly this state. All else (learning rate, batches, dropout) is computed from the
step and the seed.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from trainer.config.schema import (
    Buffers,
    MethodConfig,
    OptimConfig,
    Precision,
    Teacher,
    TrainConfig,
)
from trainer.determinism import digest
from trainer.distributed import Ranks
from trainer.evaluate import Score
from trainer.network.batch_norm import set_ranks
from trainer.network.deeplab import DeepLabV3Plus
from trainer.network.init import init_weights
from trainer.network.recompute import BlockRunner


@dataclass(frozen=True)
class SGD:
    """SGD over two groups: the backbone, and the head at `head_lr_factor` times its rate.

    Uses the function under torch.optim.SGD, because importing the class loads torch's compiler,
    which takes two seconds per process.

    Attributes:
        parameters: those of the student by name; the backbone's contain "backbone".
        momentum: one buffer per parameter, of its shape, zero before the first step.
        optim: momentum, weight decay and the factor of the head.
    """

    parameters: dict[str, nn.Parameter]
    momentum: dict[str, Tensor]
    optim: OptimConfig

    @classmethod
    def over(cls, network: nn.Module, optim: OptimConfig) -> "SGD":
        """A fresh optimiser of every parameter."""
        parameters = dict(network.named_parameters())
        buffers = {name: torch.zeros_like(value) for name, value in parameters.items()}
        return cls(parameters, buffers, optim)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply the gradients, then drop them.

        Args:
            rate: learning rate of the backbone.
        """
        names = list(self.parameters)
        backbone = [name for name in names if "backbone" in name]
        head = [name for name in names if "backbone" not in name]
        for group, factor in ((backbone, 1.0), (head, self.optim.head_lr_factor)):
            parameters = [self.parameters[name] for name in group]
            gradients = [parameter.grad for parameter in parameters]
            sgd(
                list(parameters),
                [gradient for gradient in gradients if gradient is not None],
                [self.momentum[name] for name in group],
                fused=True,  # foreach, fused and the plain loop round differently: fix one
                weight_decay=self.optim.weight_decay,
                momentum=self.optim.momentum,
                lr=rate * factor,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )
            for parameter in parameters:
                parameter.grad = None


@dataclass
class TrainState:
    """Weights, their moving average, momentum, and the scores so far.

    Attributes:
        student: the network that is trained.
        ema: moving average of the student's weights; None without an EMA teacher (A1).
        descent: optimiser with its momentum.
        step: optimiser steps done.
        scores: by epoch, counted from 1.
        seconds: spent in training and evaluation, over all attempts.
        pretrained_sha256: of the file the backbone started from.
    """

    student: DeepLabV3Plus
    ema: DeepLabV3Plus | None
    descent: SGD
    step: int = 0
    scores: dict[int, Score] = field(default_factory=dict)
    seconds: float = 0.0
    pretrained_sha256: str | None = None

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the highest mIoU, the first of equal ones; None before any evaluation."""
        if not self.scores:
            return None
        return max(self.scores, key=lambda epoch: (self.scores[epoch].miou_percent, -epoch))

    def add_score(self, epoch: int, score: Score) -> None:
        """Add an epoch's score; only the best and the last epoch keep their confusion matrix."""
        self.scores[epoch] = score
        for other, old in self.scores.items():
            if other not in (epoch, self.best_epoch):
                self.scores[other] = replace(old, confusion=())

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of the student."""
        return dict(self.student.state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on."""
        tensors = {f"student.{name}": value for name, value in self.weights().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        return tensors | {
            f"momentum.{name}": value for name, value in self.descent.momentum.items()
        }

    def digest(self) -> str:
        """Sha256 of every tensor of the state."""
        return digest(self.tensors())

    def pack(self) -> dict[str, Any]:
        """Tensors and plain values, loadable with `weights_only=True`."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "pretrained_sha256": self.pretrained_sha256,
            "scores": {
                epoch: (score.miou_percent, score.iou_percent, score.confusion)
                for epoch, score in self.scores.items()
            },
            "tensors": self.tensors(),
        }

    def unpack(self, packed: dict[str, Any]) -> None:
        """Restore the state from what `pack` returned."""
        self.step, self.seconds = packed["step"], packed["seconds"]
        self.pretrained_sha256 = packed["pretrained_sha256"]
        self.scores = {epoch: Score(*values) for epoch, values in packed["scores"].items()}
        groups: dict[str, dict[str, Tensor]] = {"student": {}, "ema": {}, "momentum": {}}
        for name, value in packed["tensors"].items():
            kind, _, rest = name.partition(".")
            groups[kind][rest] = value
        self.student.load_state_dict(groups["student"])
        if self.ema is not None:
            self.ema.load_state_dict(groups["ema"])
        for name, buffer in self.descent.momentum.items():
            buffer.copy_(groups["momentum"][name])


def new_state(
    config: TrainConfig, num_classes: int, ranks: Ranks, *, fresh: bool = True
) -> TrainState:
    """The state before step 0, the same on every rank.

    Args:
        config: the run.
        num_classes: of its dataset.
        ranks: those that train together.
        fresh: False when a checkpoint is unpacked next, so no first weights are needed.
    """
    student = DeepLabV3Plus(config.model, num_classes)
    pretrained = init_weights(student, config) if fresh else None
    student = student.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_ranks(student, ranks)
    student.backbone.run = BlockRunner(config.run.memory)
    ema = None
    if config.method.teacher is Teacher.ema:
        ema = DeepLabV3Plus(config.model, num_classes)
        ema.load_state_dict(student.state_dict())
        ema = ema.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Always in evaluation mode: its statistics come from the student, see `update_ema`.
        ema.requires_grad_(False).eval()
    state = TrainState(student.train(), ema, SGD.over(student, config.optim))
    state.pretrained_sha256 = None if pretrained is None else pretrained.sha256
    return state


@torch.no_grad()
def update_ema(state: TrainState, method: MethodConfig) -> None:
    """Move the EMA teacher (Sec. III-B) towards the student; nothing without one.

    The decay is min(1 - 1 / (step + 1), ema_decay): it grows with the steps done, so that the first
    weights, which are random, are forgotten quickly.
    """
    if state.ema is None:
        return
    decay = min(1.0 - 1.0 / (state.step + 1), method.ema_decay)
    for mean, value in zip(state.ema.parameters(), state.student.parameters(), strict=True):
        mean.lerp_(value, 1.0 - decay)
    for kept, buffer in zip(state.ema.buffers(), state.student.buffers(), strict=True):
        # Batch-norm counters are whole numbers, of which there is no average.
        if method.ema_buffers is Buffers.copy or not kept.is_floating_point():
            kept.copy_(buffer)
        else:
            kept.lerp_(buffer, 1.0 - decay)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a training forward runs: bfloat16 autocast, or none."""
    if precision is Precision.bf16:
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
