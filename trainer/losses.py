"""Pixel-wise losses as shares: each rank's sum over a denominator of the global batch.

The shares of all ranks add up to the loss, so the number of ranks changes rounding and nothing
else. Cross-entropy is taken without reduction: with one, CUDA adds with atomics and deterministic
mode refuses.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config.schema import Criterion, OptimConfig
from trainer.distributed import Ranks

IGNORED = 255


def labelled_loss(
    logits: Tensor, masks: Tensor, *, optim: OptimConfig, batch: int, ranks: Ranks
) -> Tensor:
    """L_x: cross-entropy, or its hard pixels only, over labelled pixels.

    Args:
        logits: (B, C, H, W) of this rank.
        masks: (B, H, W) int64; 255 is ignored.
        optim: says which criterion and its numbers.
        batch: labelled images per step over all ranks.
        ranks: those that share the batch.

    Returns:
        This rank's share; zero where nothing is labelled at all.
    """
    kept = masks != IGNORED
    if optim.criterion is Criterion.ohem:
        kept = hard_pixels(
            logits.detach(),
            masks,
            threshold=optim.ohem_threshold,
            min_kept_per_image=optim.ohem_min_kept_per_image,
            batch=batch,
            ranks=ranks,
        )
    losses = functional.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="none")
    total = ranks.sum(kept.sum().to(torch.float64)).clamp(min=1.0)
    return torch.where(kept, losses, 0.0).sum() / total.to(losses.dtype)


def hard_pixels(
    logits: Tensor,
    masks: Tensor,
    *,
    threshold: float,
    min_kept_per_image: int,
    batch: int,
    ranks: Ranks,
) -> Tensor:
    """Pixels that online hard example mining keeps, over the global batch.

    A pixel is kept when the probability of its class is at most the larger of `threshold` and the
    k-th smallest probability, k being `min_kept_per_image` times `batch`. With fewer labelled
    pixels than k all stay.

    Returns:
        (B, H, W) bool.
    """
    valid = masks != IGNORED
    truth = masks.masked_fill(~valid, 0)
    probability = logits.float().softmax(1).gather(1, truth[:, None])[:, 0]
    probability = probability.masked_fill(~valid, 1.0)
    min_kept = min_kept_per_image * batch
    num_valid = ranks.sum(valid.sum())
    rank_of_limit = min(min_kept, batch * masks[0].numel())
    everywhere = _gather_images(probability, batch, ranks)
    # The value, never the index: on CUDA the order among equals is not fixed.
    limit = everywhere.kthvalue(rank_of_limit).values if rank_of_limit else everywhere.new_zeros(())
    hard = valid & (probability <= limit.clamp(min=threshold))
    return torch.where(num_valid < min_kept, valid, hard)


def _gather_images(values: Tensor, batch: int, ranks: Ranks) -> Tensor:
    """One flat tensor of every rank's (B, H, W), with infinities after those of a smaller part."""
    if ranks.world_size == 1:
        return values.flatten()
    largest = -(-batch // ranks.world_size)
    padded = functional.pad(values, (0, 0, 0, 0, 0, largest - len(values)), value=torch.inf)
    return torch.cat(ranks.gather(padded)).flatten()


def pseudo_label_loss(
    student: Tensor, target: "Target", *, confidence: float, num_pixels: Tensor
) -> Tensor:
    """L_s of FixMatch: cross-entropy where the teacher is sure, over all pixels that are real.

    Args:
        student: logits, (B, C, H, W).
        target: what the teacher says.
        confidence: pixels at or above it count.
        num_pixels: pixels of the global batch that are not padding.
    """
    losses = functional.cross_entropy(student, target.classes, reduction="none")
    counted = (target.confidence >= confidence) & target.valid
    return torch.where(counted, losses, 0.0).sum() / num_pixels.to(losses.dtype)


@dataclass(frozen=True)
class Target:
    """A teacher's prediction for a batch: logits, and what the pixel-wise loss needs of them.

    Attributes:
        logits: (B, C, H, W), detached.
        confidence: (B, H, W), probability of the top class.
        classes: (B, H, W) int64.
        valid: (B, H, W) bool, False on padding.
    """

    logits: Tensor
    confidence: Tensor
    classes: Tensor
    valid: Tensor

    @classmethod
    def of(cls, logits: Tensor, valid: Tensor) -> "Target":
        """The target that logits (B, C, H, W) make."""
        logits = logits.detach().float()
        top, classes = logits.max(1)
        # max and logsumexp read the logits twice; a whole softmax would write them, too.
        return cls(logits, (top - logits.logsumexp(1)).exp(), classes, valid)

    def pasted(self, other: "Target", box: Tensor) -> "Target":
        """This target with `other`'s inside the box, (B, H, W) bool: CutMix on targets."""
        return Target(
            torch.where(box[:, None], other.logits, self.logits),
            torch.where(box, other.confidence, self.confidence),
            torch.where(box, other.classes, self.classes),
            torch.where(box, other.valid, self.valid),
        )
