"""SGD with momentum, and the groups of parameters that share rate and decay.

It uses the function under torch.optim.SGD, because importing the class loads torch's compiler,
which takes two seconds per process. foreach, fused and the plain loop round differently: fused is
fixed here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from trainer.config.schema import OptimConfig


@dataclass(frozen=True)
class SGD:
    """SGD over two groups: the backbone, and the head at `head_lr_factor` times its rate.

    Attributes:
        parameters: those of one network by name; the backbone's contain "backbone".
        momentum: one buffer per parameter, of its shape, zero before the first step.
        optim: momentum, weight decay and the factor of the head.
        decays_all: see `NetworkSpec`.
    """

    parameters: dict[str, nn.Parameter]
    momentum: dict[str, Tensor]
    optim: OptimConfig
    decays_all: bool = True

    @classmethod
    def over(cls, network: nn.Module, optim: OptimConfig, *, decays_all: bool = True) -> "SGD":
        """A fresh optimiser of every parameter."""
        parameters = dict(network.named_parameters())
        return cls(parameters, zeros(parameters), optim, decays_all)

    @property
    def buffers(self) -> dict[str, dict[str, Tensor]]:
        """What lasts from step to step, by kind and name."""
        return {"momentum": self.momentum}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply the gradients, then drop them; a parameter without gradient stays as it is.

        Args:
            rate: learning rate of the backbone.
        """
        for group in groups(self, rate):
            sgd(
                list(group.parameters),
                group.gradients,
                [self.momentum[name] for name in group.names],
                fused=True,
                weight_decay=group.weight_decay,
                momentum=self.optim.momentum,
                lr=group.rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )
            group.drop_gradients()


class GroupedOptimiser(Protocol):
    """What `groups` needs to know of an optimiser; see `SGD`."""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """By name."""

    @property
    def optim(self) -> OptimConfig:
        """Weight decay and the factor of the head."""

    @property
    def decays_all(self) -> bool:
        """Whether biases and batch normalisation decay, too."""


class Group(NamedTuple):
    """Parameters with a gradient that share rate and decay."""

    names: list[str]
    parameters: list[nn.Parameter]
    rate: float
    weight_decay: float

    @property
    def gradients(self) -> list[Tensor]:
        """One for each parameter."""
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def drop_gradients(self) -> None:
        """Free them after the step."""
        for parameter in self.parameters:
            parameter.grad = None


def groups(optimiser: GroupedOptimiser, rate: float) -> Iterator[Group]:
    """The parameters by their rate and decay; those without a gradient are in no group."""
    optim, names_of = optimiser.optim, dict[tuple[bool, bool], list[str]]()
    for name, parameter in optimiser.parameters.items():
        if parameter.grad is not None:
            decays = optimiser.decays_all or parameter.dim() > 1
            names_of.setdefault(("backbone" in name, decays), []).append(name)
    for (in_backbone, decays), names in names_of.items():
        yield Group(
            names,
            [optimiser.parameters[name] for name in names],
            rate if in_backbone else rate * optim.head_lr_factor,
            optim.weight_decay if decays else 0.0,
        )


def zeros(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """A buffer of zeros for each parameter."""
    return {name: torch.zeros_like(value) for name, value in parameters.items()}
