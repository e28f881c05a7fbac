"""One optimiser step: gradients over ranks, the optimisers, and what the method does after it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.distributed import Ranks
from trainer.methods.interface import Method, StepInput, StepResult
from trainer.objective import Objective
from trainer.state import TrainState


@dataclass(frozen=True)
class Step:
    """The step of a run, one operation after another."""

    objective: Objective
    state: TrainState
    ranks: Ranks

    @property
    def method(self) -> Method:
        """The method whose step it is."""
        return self.objective.method

    def __call__(
        self, given: StepInput, *, weight: float | Tensor, rate: float
    ) -> dict[str, Tensor]:
        """Move networks, momentum and memory by one step.

        Args:
            given: what the method gets.
            weight: alpha of the inter-pixel term at this step, ramp included.
            rate: learning rate of the backbone.

        Returns:
            This rank's shares of the loss and of its parts, detached scalars.
        """
        result = self.gradients(given, weight)
        self.descend(rate)
        self.after(given, result)
        return result.terms

    def gradients(self, given: StepInput, weight: float | Tensor) -> StepResult:
        """Forward, backward, and the sum of the gradients over ranks."""
        result = self.objective(given, weight=weight)
        result.loss.backward()  # type: ignore[no-untyped-call]
        optimisers = self.state.optimisers.values()
        self.ranks.sum_gradients([p for o in optimisers for p in o.parameters.values()])
        return replace(result, loss=result.loss.detach())

    def descend(self, rate: float) -> None:
        """The optimiser step of every trained network."""
        for optimiser in self.state.optimisers.values():
            optimiser.step(rate)

    @torch.no_grad()
    def after(self, given: StepInput, result: StepResult) -> None:
        """What the method does after the optimiser step; tensors of the memory keep their place."""
        before = dict(given.memory)
        self.method.after(given, result)
        for name, value in before.items():
            if given.memory[name] is not value:
                given.memory[name] = value.copy_(given.memory[name])
