"""Stochastic gradient descent with momentum, its buffers in plain sight."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from trainer.config import OptimConfig


@dataclass(frozen=True)
class Descent:
    """SGD over two groups: the backbone, and the head at `head_lr_factor` times its rate.

    The functional form of torch.optim.SGD: the class imports the compiler, two seconds a process.

    Attributes:
        parameters: by name, those of the student.
        momentum: one buffer per parameter, zero before the first step.
    """

    parameters: dict[str, nn.Parameter]
    momentum: dict[str, Tensor]
    optim: OptimConfig

    @classmethod
    def over(cls, network: nn.Module, optim: OptimConfig) -> "Descent":
        """A fresh optimiser of every parameter."""
        parameters = dict(network.named_parameters())
        buffers = {name: torch.zeros_like(value) for name, value in parameters.items()}
        return cls(parameters, buffers, optim)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply and drop the gradients; `rate` is the backbone's."""
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
                fused=True,  # foreach, fused and the loop round differently: one of them, always
                weight_decay=self.optim.weight_decay,
                momentum=self.optim.momentum,
                lr=rate * factor,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )
            for parameter in parameters:
                parameter.grad = None
