"""Pixel-wise losses: cross-entropy and OHEM on labels, cross-entropy on pseudo-labels.

Each rank returns a share: its own sum, divided by a denominator of the global batch. The shares of
all ranks add up to the loss, so the number of ranks changes the rounding and nothing else.
Cross-entropy is computed without reduction and summed here, because torch's own reduction adds with
atomics on CUDA, which deterministic mode refuses (A26 of docs/ambiguities.md).
Legend: B images of this rank, C classes, H x W pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config.schema import Criterion, OptimConfig
from trainer.distributed import Ranks

IGNORED = 255  # mask value of pixels without label, and of padding


def labelled_loss(
    logits: Tensor, masks: Tensor, *, optim: OptimConfig, batch: int, ranks: Ranks
) -> Tensor:
    """L_x: cross-entropy, or its hard pixels only, over labelled pixels.

    Args:
        logits: (B, C, H, W), float32.
        masks: (B, H, W) int64; 255 is ignored.
        optim: names the criterion (`ce`, `ohem`) and holds the numbers of OHEM.
        batch: labelled images per step over all ranks.
        ranks: those that share the batch.

    Returns:
        This rank's share, a scalar; zero where no pixel of the batch has a label.
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
    # float64 counts exactly; float32 holds every whole number only up to 2^24.
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
    """Pixels that online hard example mining (OHEM) keeps, chosen over the global batch.

    A pixel is kept when the probability of its class is at most the larger of `threshold` and the
    k-th smallest probability, k being `min_kept_per_image` times `batch`. With fewer labelled
    pixels than k all stay.

    Returns:
        (B, H, W) bool.
    """
    valid = masks != IGNORED
    truth = masks.masked_fill(~valid, 0)
    probability = logits.float().softmax(1).gather(1, truth[:, None])[:, 0]
    probability = probability.masked_fill(~valid, 1.0)  # the easiest value: ignored ones sort last
    min_kept = min_kept_per_image * batch
    num_valid = ranks.sum(valid.sum())
    rank_of_limit = min(min_kept, batch * masks[0].numel())
    everywhere = _gather_images(probability, batch, ranks)
    # Only the value is used: which of several equal pixels CUDA reports is not fixed. Hence all
    # pixels at the limit are kept, and there may be more than k.
    limit = everywhere.kthvalue(rank_of_limit).values if rank_of_limit else everywhere.new_zeros(())
    hard = valid & (probability <= limit.clamp(min=threshold))
    return torch.where(num_valid < min_kept, valid, hard)


def _gather_images(values: Tensor, batch: int, ranks: Ranks) -> Tensor:
    """The pixels of all ranks in one flat tensor.

    Ranks may hold different numbers of images; gathering needs one shape, so smaller ones are
    padded with infinity, which sorts after every probability.
    """
    if ranks.world_size == 1:
        return values.flatten()
    largest = -(-batch // ranks.world_size)
    padded = functional.pad(values, (0, 0, 0, 0, 0, largest - len(values)), value=torch.inf)
    return ranks.gather(padded).flatten()


def pseudo_label_loss(
    student: Tensor, target: "Target", *, confidence: float, num_pixels: Tensor
) -> Tensor:
    """L_s of FixMatch: cross-entropy with the teacher's classes where the teacher is confident.

    The denominator counts all pixels but padding, unconfident ones too, as in the UniMatch code:
    the term grows while the teacher becomes confident of more pixels.

    Args:
        student: logits, (B, C, H, W).
        target: the teacher's prediction for the same pixels.
        confidence: a pixel counts when its probability is at least this (0.95 VOC, 0 Cityscapes).
        num_pixels: pixels of the global batch that are not padding, a scalar.

    Returns:
        This rank's share, a scalar.
    """
    losses = functional.cross_entropy(student, target.classes, reduction="none")
    counted = (target.confidence >= confidence) & target.valid
    return torch.where(counted, losses, 0.0).sum() / num_pixels.to(losses.dtype)


def squared_differences(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared differences of the probabilities of two logits (B, C, H, W), summed over classes.

    Returns:
        (B, H, W); the loss of Mean Teacher before its mean.
    """
    return (student.softmax(1) - teacher.softmax(1)).square().sum(1)


@dataclass(frozen=True)
class Target:
    """A teacher's prediction for a batch: hard pseudo-labels (Eq. 1) and the logits themselves.

    Attributes:
        logits: (B, C, H, W), float32, detached; the inter-pixel term uses them.
        confidence: (B, H, W), probability of the top class at temperature 1 (A13).
        classes: (B, H, W) int64.
        valid: (B, H, W) bool, False on padding.
    """

    logits: Tensor
    confidence: Tensor
    classes: Tensor
    valid: Tensor

    @classmethod
    def of(cls, logits: Tensor, valid: Tensor) -> "Target":
        """The target made of logits (B, C, H, W) and of a map of real pixels (B, H, W)."""
        logits = logits.detach().float()
        top, classes = logits.max(1)
        # exp(max - logsumexp) is the top softmax value without writing a whole softmax.
        return cls(logits, (top - logits.logsumexp(1)).exp(), classes, valid)

    def pasted(self, other: "Target", box: Tensor) -> "Target":
        """CutMix: this target outside the box and `other` inside it.

        Args:
            other: prediction for the images that were pasted.
            box: (B, H, W) bool, True where they were pasted.
        """
        return Target(
            torch.where(box[:, None], other.logits, self.logits),
            torch.where(box, other.confidence, self.confidence),
            torch.where(box, other.classes, self.classes),
            torch.where(box, other.valid, self.valid),
        )
