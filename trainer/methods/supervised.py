"""Training on the labelled images alone."""

from dataclasses import dataclass

from trainer.losses import labelled_loss
from trainer.methods.interface import Method, MethodContext, StepInput, StepResult
from trainer.network.deeplab import normalise


@dataclass(frozen=True)
class Supervised(Method):
    """L_o = L_x: the row `Supervised Baseline` of Tables III to V."""

    context: MethodContext

    def step(self, given: StepInput) -> StepResult:
        """One forward of the labelled images."""
        config = self.context.config
        loss = labelled_loss(
            given.student(normalise(given.labelled.images)).float(),
            given.labelled.masks,
            optim=config.optim,
            batch=config.batch,
            ranks=self.context.ranks,
        )
        return StepResult(loss, (), {"loss_labelled": loss.detach()})
