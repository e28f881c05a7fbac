"""In the style of PC2Seg: pixel contrastive-consistent learning (Zhong et al. 2021).

No code of PC2Seg exists, and we have only its abstract and introduction (arXiv 2108.09025): two
views of an image get equal masks, by a squared distance, and equal features, by InfoNCE. All that
they leave open is our choice, see docs/methods/pc2seg_style.md, so numbers of this method are not
those of PC2Seg.
Legend: B images of this rank, C classes, D channels, h x w cells of stride 8, m sampled cells of an
image, M of all images of all ranks.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from datasets.augment.boxes import uniform_noise
from datasets.loading.batches import UnlabelledBatch, ViewPlan
from trainer.config.method_settings import Pc2SegStyleConfig
from trainer.config.schema import PixelDistance
from trainer.losses import Target, squared_differences
from trainer.methods import consistency
from trainer.methods.contrast.feature_bank import gather_images
from trainer.methods.contrast.info_nce import info_nce
from trainer.methods.interface import (
    Method,
    MethodContext,
    NetworkSpec,
    Position,
    StepInput,
    StepResult,
    TeacherStudentPair,
)
from trainer.network.deeplab import normalise
from trainer.network.heads import Head, Outputs
from trainer.schedule import gaussian_ramp

_PAIRS_AT_ONCE = 2**22  # of anchors and candidates; 32 MiB of random words
_LEAST_RATE = 1e-6  # of a negative whose class is surely that of the anchor


@dataclass(frozen=True)
class Pc2SegStyle(Method):
    """L_o = L_x + w_1 ramp L_2 + w_2 L_c, of one network.

    L_2 is the squared distance of the class probabilities of the weak view, a constant, and of the
    strong view; padding and holes stay out. L_c is InfoNCE of sampled cells: the positive is the
    same cell of the other view, a constant, and negatives are cells of other images, drawn by the
    probability that their class is another one. It is the mean of both views as anchors.
    """

    context: MethodContext

    @property
    def _settings(self) -> Pc2SegStyleConfig:
        return self.context.config.method.pc2seg_style

    def networks(self) -> dict[str, NetworkSpec]:
        """One network with a projection at stride 8."""
        return {"student": NetworkSpec(heads=(Head.projection,))}

    def views(self) -> ViewPlan:
        """A strong view, with a hole if asked for, and a key of the samples of each image."""
        return ViewPlan(
            strong=1,
            boxes=0,
            has_partner=False,
            has_holes=self._settings.cutout,
            channel_bits=False,
            numbers=1,
        )

    def numbers(self, position: Position) -> dict[str, float]:
        """The weight of L_2, with its ramp."""
        settings = self._settings
        ramp = gaussian_ramp(position.step, settings.ramp_epochs * position.epoch_steps)
        return {"consistency": settings.consistency_weight * ramp}

    def step(self, given: StepInput) -> StepResult:
        """Labelled images, weak and strong views pass the student one after another."""
        context, labelled, unlabelled = self.context, given.labelled, given.unlabelled
        assert unlabelled is not None
        logits = given.student(normalise(labelled.images)).float()
        loss_x = consistency.labelled_term(context, logits, labelled.masks)
        weak = given.student.outputs(normalise(unlabelled.weak))
        strong = given.student.outputs(normalise(unlabelled.strong[0]))
        hidden = torch.stack([unlabelled.padded, *unlabelled.holes]).any(0)
        target, student = Target.of(weak.logits, ~hidden), strong.logits.float()
        gaps = squared_differences(student, target.logits)
        num_pixels = context.ranks.sum(target.valid.sum().double()).clamp(min=1.0)
        loss_c = torch.where(target.valid, gaps, 0.0).sum() / num_pixels.to(gaps.dtype)
        contrast = self._contrast(unlabelled, hidden, weak, strong)
        terms = {
            "loss_labelled": loss_x.detach(),
            "loss_consistency": loss_c.detach(),
            "loss_contrast": contrast.detach(),
        }
        loss = loss_x + given.numbers["consistency"] * loss_c
        loss = loss + self._settings.contrast_weight * contrast
        pairs: tuple[TeacherStudentPair, ...] = ()
        if context.config.loss.distance is not PixelDistance.none:
            pairs = (TeacherStudentPair("strong", target.logits, student, target.valid),)
        return StepResult(loss, pairs, terms)

    def _contrast(
        self, unlabelled: UnlabelledBatch, hidden: Tensor, weak: Outputs, strong: Outputs
    ) -> Tensor:
        """This rank's share of L_c; `hidden` is padding and holes, bool (B, S, S)."""
        assert weak.projection is not None
        assert weak.coarse is not None
        assert strong.projection is not None
        cells = ~consistency.touched_cells(hidden, weak.coarse)
        sampled = _Sampled.of(unlabelled.numbers[:, 0], cells, self._settings.anchors)
        maps = (weak.projection, strong.projection)
        views = [sampled.rows(features.float()) for features in maps]  # (B, m, D)
        probabilities = sampled.rows(weak.coarse.detach().float().softmax(1))
        everywhere = [self._of_all_ranks(view.detach()).flatten(0, 1) for view in views]
        chosen = self._negatives(sampled, probabilities)
        losses = [
            info_nce(
                anchors.flatten(0, 1),
                positives.detach().flatten(0, 1),
                negatives,
                is_negative=lambda part: chosen[:, part],
                temperature=self._settings.temperature,
            )
            for anchors, positives, negatives in zip(
                views, views[::-1], everywhere[::-1], strict=True
            )
        ]
        num_anchors = self.context.ranks.sum(sampled.is_real.sum().double()).clamp(min=1.0)
        total = torch.where(sampled.is_real.flatten(), torch.stack(losses).mean(0), 0.0).sum()
        return total / num_anchors.to(total.dtype)

    @torch.no_grad()
    def _negatives(self, sampled: "_Sampled", probabilities: Tensor) -> Tensor:
        """Which sampled cells of all ranks are negatives of each of this rank's: bool (B m, M).

        Drawn without repetition, in proportion to the probability that the class is another one:
        the first of exponential clocks of these rates, which is Gumbel-top-N. The clock of a pair
        has a key of the anchor and the place of the candidate in the global batch.
        """
        others = self._of_all_ranks(probabilities)  # (G, m, C)
        num_images, num_cells = others.shape[:2]
        config, ranks = self.context.config, self.context.ranks
        images = torch.arange(num_images, device=others.device)
        own = images[ranks.rank * config.batch // ranks.world_size :][: len(probabilities)]
        is_other = (own[:, None] != images).repeat_interleave(num_cells, 0)  # (B m, G)
        can_be = is_other[:, :, None] & self._of_all_ranks(sampled.is_real)
        can_be, others = can_be.flatten(1), others.flatten(0, 1)
        count = min(self._settings.negatives, len(others))
        chosen = []
        size = max(_PAIRS_AT_ONCE // len(others), 1)
        for start in range(0, len(can_be), size):
            part = slice(start, start + size)
            keys = sampled.keys.flatten()[part]
            same = probabilities.flatten(0, 1)[part] @ others.T
            noise = uniform_noise(keys, torch.Size((len(keys), 1, 1, len(others)))).flatten(1)
            times = -(1.0 - noise).log() / ((1.0 - same).clamp(min=0.0) + _LEAST_RATE)
            times = times.masked_fill(~can_be[part], torch.inf)
            limit = times.kthvalue(count, keepdim=True).values
            chosen.append((times <= limit) & can_be[part])
        return torch.cat(chosen)

    def _of_all_ranks(self, values: Tensor) -> Tensor:
        """Values (B, ...) of all ranks in the order of the global batch, with nothing between."""
        config, ranks = self.context.config, self.context.ranks
        every = gather_images(values, config.batch, ranks)
        ends = [rank * config.batch // ranks.world_size for rank in range(ranks.world_size + 1)]
        parts = every.chunk(ranks.world_size)
        counts = [end - start for start, end in pairwise(ends)]
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


@dataclass(frozen=True)
class _Sampled:
    """Some cells of each image.

    Attributes:
        places: of the cells, int64 (B, m); real ones first.
        is_real: False where an image has fewer cells without padding and hole, bool (B, m).
        keys: of the draws of each cell, in [0, 1), float64 (B, m).
    """

    places: Tensor
    is_real: Tensor
    keys: Tensor

    @classmethod
    def of(cls, numbers: Tensor, is_real: Tensor, count: int) -> "_Sampled":
        """Draw at most so many cells of each image.

        Args:
            numbers: in [0, 1), float64 (B,); all draws follow from them.
            is_real: bool (B, h, w), cells that may be drawn.
            count: of cells.
        """
        (images, height, width), device = is_real.shape, is_real.device
        drawn = uniform_noise(numbers, torch.Size((images, 3, height, width))).double().flatten(2)
        first, high, low = drawn.unbind(1)
        # One whole number of both, so that no two are equal and their values say all.
        cells = height * width
        order = (first * 2.0**24).long() + (~is_real.flatten(1)).long() * 2**24
        order = order * cells + torch.arange(cells, device=device)
        places = order.sort(1).values[:, :count] % cells
        taken = [x.gather(1, places) for x in (is_real.flatten(1), high + low * 2.0**-24)]
        return cls(places, *taken)

    def rows(self, maps: Tensor) -> Tensor:
        """Maps (B, K, h, w) at the places, (B, m, K)."""
        # A product with zeros and ones: the gradient of gather() adds with atomics on CUDA.
        cells = torch.arange(maps[0, 0].numel(), device=maps.device)
        with torch.autocast("cuda" if maps.is_cuda else "cpu", enabled=False):
            is_place = (self.places[:, :, None] == cells).to(maps.dtype)
            return is_place @ maps.flatten(2).transpose(1, 2)
