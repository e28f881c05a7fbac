"""FixMatch in UniMatch's segmentation form (part_a 3)."""

from dataclasses import dataclass

import torch

from datasets.loading.samples import LabelledBatch, UnlabelledBatch
from trainer.losses import labelled_loss
from trainer.methods import consistency
from trainer.methods.interface import MethodContext, Networks, StepResult
from trainer.network.deeplab import normalise


@dataclass(frozen=True)
class FixMatch:
    """L = (L_x + L_s) / 2 with one strong view."""

    setting: MethodContext

    def __call__(
        self, networks: Networks, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None
    ) -> StepResult:
        """Steps 1 to 7 of part_a 3.1."""
        assert unlabelled is not None
        setting, student = self.setting, networks.student
        partner = consistency.partner_logits(setting, networks, unlabelled)
        (view,) = consistency.strong_views(unlabelled, ("s1",))
        num_labelled = len(labelled.images)
        both = normalise(torch.cat([labelled.images, unlabelled.weak]))
        logits, weak = student(both).float().tensor_split([num_labelled])
        strong = student(normalise(view.pasted)).float()
        labels, teacher = consistency.teacher_targets(
            setting, networks, unlabelled, trained=weak, partner=partner
        )
        loss_x = labelled_loss(
            logits,
            labelled.masks,
            optim=setting.config.optim,
            batch=setting.config.batch,
            ranks=setting.ranks,
        )
        target = labels.weak.pasted(labels.mix, view.box)
        loss_s = consistency.pixel_term(setting, strong, target)
        pairs = consistency.strong_pairs(setting, student, teacher, {"s1": (view, strong)})
        terms = {
            "loss_labelled": loss_x.detach(),
            "loss_strong": loss_s.detach(),
            "mask_ratio": consistency.mask_ratio(setting, labels.weak),
        }
        return StepResult((loss_x + loss_s) / 2.0, tuple(pairs), terms)
