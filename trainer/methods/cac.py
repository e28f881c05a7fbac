"""CAC: directional context-aware consistency (Lai et al. 2021, arXiv 2106.14133).

Legend: B images of this rank, C classes, D channels, h x w cells of stride 8, n = B h w cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.loading.batches import ViewPlan
from trainer.config.method_settings import CacConfig, PairDirection
from trainer.config.schema import Graph, PixelDistance, Resolution
from trainer.losses import Target
from trainer.methods import consistency
from trainer.methods.contrast.feature_bank import FeatureBank, NewRows, gather_images
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
from trainer.network.deeplab import DeepLabV3Plus, normalise
from trainer.network.heads import Head

_NONE = 0  # instead of a class, which counts from 1 here: padding, and what the bank lacks yet


@dataclass(frozen=True)
class ContextAwareConsistency(Method):
    """L_o = L_x + w (l_1 + l_2): two crops of an image have equal features where they overlap.

    l_1 is InfoNCE of the cells of the first crop: the positive is the same cell seen in the second
    crop, negatives are cells of both crops of all images, of this step and of some before, whose
    predicted class is another one. Only cells count of which the other crop is sure, and surer than
    this one; so the gradient flows from the surer to the less sure view only. l_2 is the same of
    the second crop. The first epochs are supervised.
    """

    context: MethodContext

    def __post_init__(self) -> None:
        """Refuse steps of two kinds in one graph, and a second sampling of the maps."""
        config = self.context.config
        if self._settings.supervised_epochs and config.run.graph is Graph.step:
            raise ValueError(
                "run.graph=step replays one kind of step, and method=cac has two; use "
                "run.graph=none, or method.cac.supervised_epochs=0."
            )
        if config.loss.resolution is not Resolution.crop:
            raise ValueError(
                "loss.resolution=feature takes every fourth pixel of a crop, and method=cac "
                "compares maps of stride 8 already; use loss.resolution=crop."
            )

    @property
    def _settings(self) -> CacConfig:
        return self.context.config.method.cac

    @property
    def _bank(self) -> FeatureBank:
        """Both crops of all images of some steps."""
        config = self.context.config
        cells = (-(-config.data.crop // 4) // 2) ** 2  # pairs of the cells of stride 4
        rows = self._settings.saved_steps * 2 * config.batch * cells
        return FeatureBank("negatives", (rows,))

    def networks(self) -> dict[str, NetworkSpec]:
        """One network with a projection at stride 8."""
        return {"student": NetworkSpec(heads=(Head.projection,))}

    def views(self) -> ViewPlan:
        """Two overlapping crops, each with its strong view."""
        return ViewPlan(strong=1, boxes=0, has_partner=False, has_overlap=True, channel_bits=False)

    def memory(self) -> dict[str, Tensor]:
        """Negatives of the last steps with their predicted classes."""
        if not self._settings.saved_steps:
            return {}
        row = torch.zeros(self.context.config.model.head_channels // 2)
        return self._bank.memory(features=row, classes=torch.zeros((), dtype=torch.int64))

    def numbers(self, position: Position) -> dict[str, float]:
        """Whether the step is one of the first, supervised ones."""
        supervised_steps = self._settings.supervised_epochs * position.epoch_steps
        return {"is_supervised": float(position.step < supervised_steps)}

    def step(self, given: StepInput) -> StepResult:
        """Labelled images, first and second crops pass the student one after another."""
        context, labelled = self.context, given.labelled
        logits = given.student(normalise(labelled.images)).float()
        loss_x = consistency.labelled_term(context, logits, labelled.masks)
        terms = {"loss_labelled": loss_x.detach()}
        if self._settings.supervised_epochs and given.numbers["is_supervised"]:
            return StepResult(loss_x, (), terms)
        crops, shift = self._crops(given)
        kept = self._negatives(crops)
        negatives = {
            name: torch.cat([kept[name], given.memory.get(f"negatives.{name}", kept[name][:0])])
            for name in ("features", "classes")
        }
        views = [_View.of(*crops, shift), _View.of(*crops[::-1], -shift)]
        chosen = [view.chosen(context.config.method.confidence) for view in views]
        losses = [
            self._contrast(view, cells, negatives)
            for view, cells in zip(views, chosen, strict=True)
        ]
        loss_contrast = torch.stack(losses).sum()
        num_cells = context.ranks.sum(torch.stack([v.other.valid for v in views]).sum().double())
        terms["loss_contrast"] = loss_contrast.detach()
        terms["mask_ratio"] = torch.stack(chosen).sum() / num_cells.clamp(min=1.0)
        loss = loss_x + self._settings.weight * loss_contrast
        return StepResult(loss, tuple(self._pairs(views)), terms, kept)

    def _crops(self, given: StepInput) -> tuple[tuple["_Crop", "_Crop"], Tensor]:
        """Both crops of the images, and the shift from the first to the second in cells, (B, 2)."""
        unlabelled = given.unlabelled
        assert unlabelled is not None
        second = unlabelled.second
        assert second is not None
        mirrored = second.mirrored.unbind(1)
        crops = (
            _Crop.of(given.student, unlabelled.strong[0], unlabelled.padded, mirrored[0]),
            _Crop.of(given.student, second.strong, second.padded, mirrored[1]),
        )
        return crops, second.shift // 8

    def _negatives(self, crops: tuple["_Crop", "_Crop"]) -> dict[str, Tensor]:
        """Of the cells of both crops of all ranks' images: features (K, D) and classes (K,).

        And whether there is such an image, bool (K,): ranks with fewer ones are filled up.
        """
        rows: dict[str, list[Tensor]] = {"features": [], "classes": [], "is_there": []}
        for crop in crops:
            target = crop.target
            is_real = target.valid | self._settings.padded_negatives
            mine = {
                "features": crop.features.detach().movedim(1, -1),
                "classes": torch.where(is_real, target.classes + 1, _NONE),
                "is_there": torch.ones_like(target.valid),
            }
            for name, value in mine.items():
                every = gather_images(value, self.context.config.batch, self.context.ranks)
                rows[name].append(every.flatten(0, 2))
        return {name: torch.cat(parts) for name, parts in rows.items()}

    def _contrast(self, view: "_View", chosen: Tensor, negatives: dict[str, Tensor]) -> Tensor:
        """This rank's share of the mean InfoNCE of the chosen cells, which are bool (B, h, w)."""
        own, others = view.own.classes.flatten()[:, None] + 1, negatives["classes"]
        losses = info_nce(
            _in_rows(view.features),
            _in_rows(view.positives),
            negatives["features"],
            is_negative=lambda part: (others[part] != own) & (others[part] != _NONE),
            temperature=self._settings.temperature,
        )
        num_chosen = self.context.ranks.sum(chosen.sum().double()).clamp(min=1.0)
        return torch.where(chosen.flatten(), losses, 0.0).sum() / num_chosen.to(losses.dtype)

    def _pairs(self, views: list["_View"]) -> Iterator[TeacherStudentPair]:
        """Each crop teaches the other in their overlap; by default where it is the surer one."""
        config = self.context.config
        if config.loss.distance is PixelDistance.none:
            return
        for name, view in zip(("2to1", "1to2"), views, strict=True):
            if name in config.pair_views:
                valid = view.other.valid
                if self._settings.pairs is PairDirection.directional:
                    valid = valid & view.is_less_sure
                yield TeacherStudentPair(name, view.other.logits, view.logits, valid)

    def after(self, given: StepInput, result: StepResult) -> None:
        """Put the step's negatives into the bank; those of the oldest step make room."""
        if result.kept and self._settings.saved_steps:
            rows = {name: result.kept[name] for name in ("features", "classes")}
            self._bank.push(given.memory, NewRows.of(rows, result.kept["is_there"][None]))


@dataclass(frozen=True)
class _Crop:
    """What the student makes of one crop, mirrored back.

    Attributes:
        features: of length one, (B, D, h, w).
        logits: (B, C, h, w).
        target: the same as constants, with confidence and classes; not valid on padding.
    """

    features: Tensor
    logits: Tensor
    target: Target

    @classmethod
    def of(
        cls, student: DeepLabV3Plus, images: Tensor, padded: Tensor, mirrored: Tensor
    ) -> "_Crop":
        """The student's outputs of crops (B, 3, S, S), some of which are mirrored, bool (B,)."""
        outputs = student.outputs(normalise(images), mirrored)
        assert outputs.projection is not None
        assert outputs.coarse is not None
        logits = outputs.coarse.float()
        padded = torch.where(mirrored[:, None, None], padded.flip(-1), padded)
        target = Target.of(logits, ~consistency.touched_cells(padded, logits))
        return cls(outputs.projection.float(), logits, target)


@dataclass(frozen=True)
class _View:
    """One crop, and what the other one shows at its cells.

    Attributes:
        features: of this crop, (B, D, h, w); gradients flow here.
        logits: of this crop, (B, C, h, w); gradients flow here.
        own: what this crop predicts.
        positives: features of the other crop at the cells of this one, constants (B, D, h, w).
        other: what the other crop predicts there; valid where the two overlap without padding.
    """

    features: Tensor
    logits: Tensor
    own: Target
    positives: Tensor
    other: Target

    @classmethod
    def of(cls, crop: _Crop, other: _Crop, shift: Tensor) -> "_View":
        """Lay the other crop on this one.

        Args:
            crop: this one.
            other: the other one.
            shift: cells to the right and down from this crop to the other, int64 (B, 2).
        """
        maps = torch.cat([other.features.detach(), other.target.logits], dim=1)
        count, height, width = maps.shape[1:]
        rows = torch.arange(height, device=maps.device)[:, None] - shift[:, 1, None, None]
        columns = torch.arange(width, device=maps.device) - shift[:, 0, None, None]
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        place = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)  # (B, h, w)
        place = place.flatten(1)
        moved = maps.flatten(2).gather(2, place[:, None].expand(-1, count, -1)).view_as(maps)
        valid = other.target.valid.flatten(1).gather(1, place).view_as(inside)
        positives, logits = moved.tensor_split([other.features.shape[1]], dim=1)
        target = Target.of(logits, crop.target.valid & valid & inside)
        return cls(crop.features, crop.logits, crop.target, positives, target)

    @property
    def is_less_sure(self) -> Tensor:
        """Where this crop is less sure than the other one, bool (B, h, w)."""
        return self.own.confidence < self.other.confidence

    def chosen(self, confidence: float) -> Tensor:
        """The cells that count: the other crop is sure there, and surer than this one."""
        return self.other.valid & (self.other.confidence > confidence) & self.is_less_sure


def _in_rows(maps: Tensor) -> Tensor:
    """(B, D, h, w) to (n, D)."""
    return maps.movedim(1, -1).flatten(0, 2)
