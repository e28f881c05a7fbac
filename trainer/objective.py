"""What a step minimises: the method's loss and the weighted inter-pixel term (Eq. 6)."""

from dataclasses import dataclass

from torch import Tensor

from datasets.batches import LabelledBatch, UnlabelledBatch
from trainer.choices import Distance
from trainer.config import TrainConfig
from trainer.inter_pixel_term import InterPixelTerm
from trainer.methods.registry import METHODS
from trainer.methods.step import Method, Networks, Setting
from trainer.ranks import Ranks
from trainer.state import autocast


@dataclass(frozen=True)
class Objective:
    """L = L_o + alpha L_IPix of one run, as a function of a batch."""

    config: TrainConfig
    ranks: Ranks
    method: Method
    term: InterPixelTerm

    @classmethod
    def of(cls, config: TrainConfig, ranks: Ranks) -> "Objective":
        """The objective that a configuration names."""
        method = METHODS[config.method.algorithm](Setting(config, ranks))
        return cls(config, ranks, method, InterPixelTerm(config.loss, config.batch, ranks))

    def __call__(
        self,
        networks: Networks,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        *,
        weight: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """This rank's share of the loss, and the detached shares of its parts for the log.

        Args:
            networks: in training mode.
            labelled: images with masks.
            unlabelled: None for the supervised method.
            weight: of the inter-pixel term at this step.
        """
        with autocast(self.config.optim.precision, self.ranks.device):
            result = self.method(networks, labelled, unlabelled)
        loss, terms = result.loss, dict(result.terms)
        if self.config.loss.distance is not Distance.none:
            added = self.term(result.pairs)
            terms["loss_inter_pixel"] = added.detach()
            loss = loss + weight * added
        terms["loss"] = loss.detach()
        return loss, terms
