"""The contrastive loss of U2PL (Wang et al. 2022, Sec. 3.3): anchors, centres, banks of negatives.

Everything is defined on the global batch, and all choices come from one number of the step, so that
the loss and the banks do not depend on the number of ranks.
Legend: B labelled and as many unlabelled images of this rank, C classes, D channels of embeddings,
N pixels of an image at stride 4, P pixels of all images of all ranks, M anchors of a class and K
negatives of an anchor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from datasets.augment.boxes import uniform_noise
from trainer.config.method_settings import BankPrecision, Compat, U2plConfig
from trainer.distributed import Ranks
from trainer.methods.contrast.feature_bank import (
    FeatureBank,
    NewRows,
    block_of,
    gather_images,
    places_of,
)

_ANCHORS_AT_ONCE = 512  # with 50 negatives of 256 channels 26 MB in float32


@dataclass(frozen=True)
class Pixels:
    """What is known at stride 4 of labelled images and, behind them, of pasted unlabelled ones.

    Attributes:
        student: embeddings (2B, D, h, w); gradients flow here.
        teacher: embeddings (2B, D, h, w).
        logits: of the teacher, (2B, C, h, w).
        classes: labels, then pseudo-labels; 255 is ignored; int64 (2B, h, w).
        low: where the teacher's entropy is low, and all labelled pixels; bool (2B, h, w).
        high: where it is high, and all labelled pixels; bool (2B, h, w).
    """

    student: Tensor
    teacher: Tensor
    logits: Tensor
    classes: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class _Sets:
    """The pixels of each class that have a part in its loss, bool (2B, C, N) each.

    Attributes:
        members: of the class, with low entropy; a class without any is not in the batch.
        anchors: those of which the teacher is a little sure.
        negatives: to be put into the bank of the class.
    """

    members: Tensor
    anchors: Tensor
    negatives: Tensor

    @classmethod
    def of(cls, pixels: Pixels, settings: U2plConfig) -> "_Sets":
        """A class is likely at a pixel while fewer than `rank_low` classes are more probable.

        Negatives of a class are labelled pixels of another class where it is likely, and unlabelled
        pixels of high entropy where it is unlikely, but not among the last.
        """
        logits = pixels.logits
        numbers = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
        is_class = pixels.classes[:, None] == numbers  # (2B, C, h, w)
        members = is_class & pixels.low[:, None]
        place = torch.zeros_like(logits, dtype=torch.int16)  # of each class in the order of logits
        for other in logits.unbind(1):
            place += other[:, None] > logits
        likely = place < settings.rank_low
        labelled, unlabelled = (~is_class & likely).chunk(2)[0], (~likely).chunk(2)[1]
        unlabelled = unlabelled & (place < settings.rank_high).chunk(2)[1]
        negatives = torch.cat([labelled, unlabelled]) & pixels.high[:, None]
        if settings.compat is Compat.released:
            negatives = negatives & is_class
        anchors = members & (logits.softmax(1) > settings.anchor_confidence)
        return cls(*(mask.flatten(2) for mask in (members, anchors, negatives)))


@dataclass(frozen=True)
class Contrast:
    """L_c: anchors of a class come nearer to its centre than to its negatives.

    Attributes:
        settings: of the method.
        num_classes: of the data set.
        batch: labelled images per step over all ranks; as many unlabelled.
        ranks: those that share the batch.
    """

    settings: U2plConfig
    num_classes: int
    batch: int
    ranks: Ranks

    @property
    def bank(self) -> FeatureBank:
        """Negatives of each class: embeddings of the teacher, of length one."""
        settings = self.settings
        capacities = (settings.bank_rows_first, *[settings.bank_rows] * (self.num_classes - 1))
        return FeatureBank("negatives", capacities)

    def memory(self, channels: int) -> dict[str, Tensor]:
        """Empty banks of embeddings of so many channels."""
        is_half = self.settings.bank_precision is BankPrecision.half
        dtype = torch.float16 if is_half else torch.get_default_dtype()
        return self.bank.memory(features=torch.zeros(channels, dtype=dtype))

    def loss(
        self, memory: dict[str, Tensor], pixels: Pixels, key: Tensor
    ) -> tuple[Tensor, NewRows]:
        """This rank's share of L_c, and the negatives of this step.

        They are drawn from the banks as they are after the push, which is left to the caller.

        Args:
            memory: with the banks before this step.
            pixels: of this rank.
            key: in [0, 1), float64, a scalar: of all choices of the step, equal on all ranks.
        """
        settings, sets = self.settings, _Sets.of(pixels, self.settings)
        teacher = _rows(pixels.teacher).float()  # (2B, N, D)
        unit = functional.normalize(teacher, dim=2).to(memory["negatives.features"].dtype)
        new = NewRows.of(
            {"features": self._all(unit).flatten(0, 1)}, self._by_class(sets.negatives)
        )
        centres, present = self._centres(teacher, sets)
        num_present = present.sum()
        queues = torch.arange(self.num_classes, device=key.device)
        if settings.compat is Compat.released:
            # Anchors and centres of class i, for i below the number of classes in the batch, meet
            # the bank of the i-th class in the batch.
            present, queues = queues < num_present, places_of(present[None])[0]
            queues = queues.clamp(max=self.num_classes - 1)
        filled = self.bank.filled(memory, new).index_select(0, queues)
        shape = torch.Size((1, self.num_classes, settings.anchors, 1 + settings.negatives))
        drawn = uniform_noise(key[None], shape)[0].double()  # (C, M, 1 + K)
        places, num_anchors = self._anchors(sets, drawn[..., 0])
        anchors = functional.normalize(_Picked.apply(_rows(pixels.student), places), dim=2)  # type: ignore[no-untyped-call]
        ages = (drawn[..., 1:] * filled[:, None, None]).long().flatten(0, 1)  # (C * M, K)
        queue_of = queues[:, None].expand(places.shape).flatten()

        def negatives(part: slice) -> Tensor:
            queue = queue_of[part, None].expand_as(ages[part])
            rows = self.bank.read(memory, "features", new, queue=queue, age=ages[part])
            return rows.to(anchors.dtype)

        losses = sampled_info_nce(
            anchors.flatten(0, 1),
            centres[:, None].expand(anchors.shape).flatten(0, 1),
            negatives,
            temperature=settings.temperature,
        )
        usable = present & (num_anchors > 0) & (filled > 0) & (num_present > 1)
        counted = usable[:, None] & (places < pixels.student[:, 0].numel())
        total = torch.where(counted, losses.view(places.shape), 0.0).sum()
        return total / (settings.anchors * num_present.clamp(min=1)), new

    def _centres(self, teacher: Tensor, sets: _Sets) -> tuple[Tensor, Tensor]:
        """Means of the teacher's embeddings, of length one (C, D); which classes there are (C,).

        In the paper of the anchors, in the code of all members.
        """
        is_paper = self.settings.compat is Compat.paper
        chosen = sets.anchors if is_paper else sets.members
        sums = (chosen.to(teacher.dtype) @ teacher).sum(0)
        counts = torch.stack([mask.sum((0, 2)) for mask in (chosen, sets.members)], 1)
        totals = self.ranks.sum(torch.cat([sums.double(), counts.double()], 1))
        sums, count, members = totals.tensor_split([-2, -1], dim=1)
        means = (sums / count.clamp(min=1.0)).to(teacher.dtype)
        return functional.normalize(means, dim=1), members[:, 0] > 0

    def _anchors(self, sets: _Sets, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Places of the drawn anchors in this rank's rows (C, M), and how many there were (C,).

        An anchor of another rank, or of a class without any, has the place behind the last row.
        """
        images, _, num_pixels = sets.anchors.shape
        everywhere = self._by_class(sets.anchors)
        count = everywhere.sum(1)
        chosen = places_of(everywhere).gather(1, (drawn * count[:, None]).long())
        block = block_of(self.batch, self.ranks)
        half_and_image, pixel = chosen // num_pixels, chosen % num_pixels
        of_all = block * self.ranks.world_size
        half, image = half_and_image // of_all, half_and_image % of_all - self.ranks.rank * block
        is_own = (image >= 0) & (image < images // 2) & (count > 0)[:, None]
        place = (half * (images // 2) + image) * num_pixels + pixel
        return torch.where(is_own, place, images * num_pixels), count

    def _by_class(self, mask: Tensor) -> Tensor:
        """A mask (2B, C, N) of this rank as one of all ranks, (C, P)."""
        return self._all(mask).transpose(0, 1).flatten(1)

    def _all(self, values: Tensor) -> Tensor:
        """Values (2B, ...) of all ranks: of the labelled images, then of the unlabelled ones."""
        pairs = torch.stack(values.chunk(2), 1)  # (B, 2, ...)
        return gather_images(pairs, self.batch, self.ranks).transpose(0, 1).flatten(0, 1)


def _rows(maps: Tensor) -> Tensor:
    """Maps (2B, D, h, w) as rows (2B, N, D)."""
    return maps.flatten(2).transpose(1, 2)


def sampled_info_nce(
    anchors: Tensor,
    positives: Tensor,
    negatives: Callable[[slice], Tensor],
    *,
    temperature: float,
    at_once: int = _ANCHORS_AT_ONCE,
) -> Tensor:
    """InfoNCE of every anchor with negatives of its own, (A,): minus log of the positive's share.

    Args:
        anchors: of length one, (A, D); gradients flow here.
        positives: of length one, (A, D), constants.
        negatives: gives those of some anchors, (a, K, D); only so many exist at a time.
        temperature: divides the cosines.
        at_once: how many anchors are treated together.
    """
    losses: Tensor = _SampledInfoNce.apply(anchors, positives, negatives, temperature, at_once)  # type: ignore[no-untyped-call]
    return losses


class _SampledInfoNce(torch.autograd.Function):
    """Keeps the gradient of each loss by its anchor, (A, D), and no negative."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        positives: Tensor,
        negatives: Callable[[slice], Tensor],
        temperature: float,
        at_once: int,
    ) -> Tensor:
        losses, slopes = [], []
        for first in range(0, len(anchors), at_once):
            part = slice(first, first + at_once)
            anchor, positive, others = anchors[part], positives[part], negatives(part)
            near = (positive * anchor).sum(1, keepdim=True)
            far = (others @ anchor[:, :, None])[..., 0]  # (a, K)
            log_p = (torch.cat([near, far], 1) / temperature).log_softmax(1)
            losses.append(-log_p[:, 0])
            shares = log_p.exp()
            pushed = (shares[:, None, 1:] @ others)[:, 0]
            slopes.append((pushed - (1.0 - shares[:, :1]) * positive) / temperature)
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return grad[:, None] * slopes, None, None, None, None


class _Picked(torch.autograd.Function):
    """Rows of images at some places, several times perhaps, in float32.

    The gradient of index_select is added by atomics on CUDA. Here picks of one row are added by a
    matrix product, and every row takes the sum of a pick of it.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        """Rows (2B, N, D) at places (C, M): (C, M, D).

        A row may occur in one of the C only; a place behind the last row takes any row, and gives
        no gradient.
        """
        ctx.save_for_backward(places)
        ctx.like = rows.shape, rows.dtype
        flat = rows.flatten(0, 1)
        picked = flat.index_select(0, places.flatten().clamp(max=len(flat) - 1))
        return picked.view(*places.shape, -1).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        shape, dtype = ctx.like
        is_same = places[:, :, None] == places[:, None, :]
        sums = (is_same.to(grad.dtype) @ grad).flatten(0, 1)
        ordered, picks = places.flatten().sort(stable=True)
        rows = torch.arange(shape[0] * shape[1], device=places.device)
        first = torch.searchsorted(ordered, rows).clamp(max=len(ordered) - 1)
        is_picked = ordered.index_select(0, first) == rows
        of_rows = sums.index_select(0, picks.index_select(0, first))
        return torch.where(is_picked[:, None], of_rows, 0.0).to(dtype).view(shape), None
