"""Adam, and the choice of an optimiser."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from trainer.config.schema import OptimConfig, OptimiserKind
from trainer.optimisers.sgd import SGD, groups, zeros


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015) over the same groups; weight decay is added to the gradient.

    Attributes:
        parameters: those of one network by name; the backbone's contain "backbone".
        momentum: running means of the gradients, by `optim.momentum`.
        squares: running means of their squares, by 0.999.
        steps: steps taken, float32, a scalar named "taken".
        optim: momentum, weight decay and the factor of the head.
        decays_all: see `NetworkSpec`.
    """

    parameters: dict[str, nn.Parameter]
    momentum: dict[str, Tensor]
    squares: dict[str, Tensor]
    steps: dict[str, Tensor]
    optim: OptimConfig
    decays_all: bool = True

    @classmethod
    def over(cls, network: nn.Module, optim: OptimConfig, *, decays_all: bool = True) -> "Adam":
        """A fresh optimiser of every parameter."""
        parameters = dict(network.named_parameters())
        device = next(iter(parameters.values())).device
        steps = {"taken": torch.zeros((), device=device)}
        momentum, squares = zeros(parameters), zeros(parameters)
        return cls(parameters, momentum, squares, steps, optim, decays_all)

    @property
    def buffers(self) -> dict[str, dict[str, Tensor]]:
        """What lasts from step to step, by kind and name."""
        return {"momentum": self.momentum, "squares": self.squares, "steps": self.steps}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """As of `SGD`."""
        for group in groups(self, rate):
            # torch counts the steps of each parameter, here that of the network: it gets copies.
            steps = self.steps["taken"].repeat(len(group.names)).unbind()
            adam(
                list(group.parameters),
                group.gradients,
                [self.momentum[name] for name in group.names],
                [self.squares[name] for name in group.names],
                [],
                list(steps),
                fused=True,
                amsgrad=False,
                beta1=self.optim.momentum,
                beta2=_BETA_2,
                lr=group.rate,
                weight_decay=group.weight_decay,
                eps=_EPSILON,
                maximize=False,
            )
            group.drop_gradients()
        self.steps["taken"] += 1.0


_BETA_2, _EPSILON = 0.999, 1e-8
Optimiser: TypeAlias = SGD | Adam


def new_optimiser(network: nn.Module, optim: OptimConfig, *, decays_all: bool) -> Optimiser:
    """What `optim.optimiser` names, fresh, of every parameter."""
    kind = Adam if optim.optimiser is OptimiserKind.adam else SGD
    return kind.over(network, optim, decays_all=decays_all)
