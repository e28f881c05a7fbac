"""Training on the labelled images alone."""

from dataclasses import dataclass

from datasets.loading.samples import LabelledBatch, UnlabelledBatch
from trainer.losses import labelled_loss
from trainer.methods.interface import MethodContext, Networks, StepResult
from trainer.network.deeplab import normalise


@dataclass(frozen=True)
class Supervised:
    """L_o = L_x: the row `Supervised Baseline` of Tables III to V."""

    context: MethodContext

    def __call__(
        self, networks: Networks, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None
    ) -> StepResult:
        """One forward of the labelled images; `unlabelled` is not used."""
        config = self.context.config
        loss = labelled_loss(
            networks.student(normalise(labelled.images)).float(),
            labelled.masks,
            optim=config.optim,
            batch=config.batch,
            ranks=self.context.ranks,
        )
        return StepResult(loss, (), {"loss_labelled": loss.detach()})
