"""ST++: self-training in three trainings (Yang et al. 2022, arXiv 2106.05095)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from datasets.images.predicted import PredictedMasks
from datasets.loading.batches import ViewPlan
from trainer.config.method_settings import StPlusPlusConfig
from trainer.config.schema import Criterion, PixelDistance
from trainer.losses import IGNORED, labelled_loss
from trainer.methods.consistency import eval_logits
from trainer.methods.interface import (
    Method,
    MethodContext,
    NetworkSpec,
    StageInput,
    StageStart,
    StepInput,
    StepResult,
    TeacherStudentPair,
)
from trainer.methods.st_plusplus_stages import ALL, RELIABLE, SUPERVISED, labelled_repeats
from trainer.network.deeplab import normalise
from trainer.schedule import Stage
from trainer.stages.labelling import Labelling
from trainer.stages.products import Products, text_sha256


@dataclass(frozen=True)
class StPlusPlus(Method):
    """Each training begins anew and learns the masks that the network of the one before predicts.

    The first one has labelled images alone. By its network at a third, two thirds and the end of
    its epochs the unlabelled images are ranked; the second training adds the more reliable half of
    them, the third all of them. ST, without the second training, adds all at once.
    Legend: B images of this rank, C classes, S x S pixels.
    """

    context: MethodContext

    def networks(self) -> dict[str, NetworkSpec]:
        """The student; with an inter-pixel term also the network that predicted the masks."""
        networks = {"student": NetworkSpec()}
        if self.context.config.loss.distance is not PixelDistance.none:
            networks["teacher"] = NetworkSpec(is_trained=False, copy_of="student")
        return networks

    def views(self) -> ViewPlan:
        """Images with predicted masks have a strong view with a hole."""
        return ViewPlan(
            strong=0,
            boxes=0,
            has_partner=False,
            has_holes=True,
            labelled_strong=True,
            channel_bits=False,
        )

    def kept_epochs(self, stage: Stage) -> dict[str, int]:
        """The last one; of the first training also those at a third and two thirds, to rank."""
        if stage.name == ALL:
            return {}
        kept = {"last": stage.epochs}
        if stage.name == SUPERVISED and self._settings.plus:
            kept["third"] = max(stage.epochs // 3, 1)
            kept["two-thirds"] = max(stage.epochs * 2 // 3, 1)
        return kept

    def before_stage(self, given: StageInput) -> StageStart:
        """Rank the unlabelled images and predict the masks that the stage learns."""
        config, dataset = self.context.config, given.dataset
        work = Labelling(config, self.context.ranks, dataset, given.tick)
        paths: dict[str, Path] = {}
        digests, teacher = [], ""
        for name, images, teacher in self._parts(given, work):
            products = Products(given.folder / name, dataset.num_classes)
            work.masks(images, products, partial(given.kept, teacher))
            paths |= products.paths(images)
            digests.append(products.digest("reliability", "masks"))
        repeats = labelled_repeats(len(dataset.split.labelled), len(paths))
        mixed = replace(dataset, predicted=PredictedMasks(dataset.num_classes, repeats, paths))
        kept = {"teacher": teacher} if teacher and "teacher" in self.networks() else {}
        return StageStart(mixed, kept, text_sha256(" ".join(digests)) if digests else "")

    def step(self, given: StepInput) -> StepResult:
        """One forward of true and predicted masks together, with one plain mean.

        OHEM, where a recipe has it, is for true masks: it would choose what is predicted wrongly.
        """
        config, ranks, batch = self.context.config, self.context.ranks, given.labelled
        student, optim = given.student(normalise(batch.strong)).float(), config.optim
        pairs: tuple[TeacherStudentPair, ...] = ()
        if len(batch.is_predicted):
            optim = replace(optim, criterion=Criterion.ce)
            if "teacher" in given.networks:
                pairs = (self._pair(given, student),)
        loss = labelled_loss(student, batch.masks, optim=optim, batch=config.batch, ranks=ranks)
        return StepResult(loss, pairs, {"loss_labelled": loss.detach()})

    def _pair(self, given: StepInput, student: Tensor) -> TeacherStudentPair:
        """The frozen network on weak views, which are not cut out, beside the student's logits."""
        batch = given.labelled
        teacher = eval_logits(given.networks["teacher"], normalise(batch.images))
        valid = (batch.masks != IGNORED) & batch.is_predicted[:, None, None]
        num_images = self.context.ranks.sum(batch.is_predicted.sum()).clamp(min=1)
        return TeacherStudentPair("strong", teacher, student, valid, num_images=num_images)

    def _parts(
        self, given: StageInput, work: Labelling
    ) -> Iterator[tuple[str, Sequence[str], str]]:
        """The masks of a stage: the folder, the images, and the kept network that predicts them."""
        names, stage = given.dataset.split.unlabelled, given.stage
        if stage.name == SUPERVISED:
            return
        if not self._settings.plus:
            yield ALL, names, self._teacher(SUPERVISED)
            return
        ranked = work.by_reliability(
            names,
            Products(given.folder / RELIABLE, given.dataset.num_classes),
            [f"{SUPERVISED}-{name}" for name in ("third", "two-thirds", "last")],
            given.kept,
        )
        half = set(ranked[: len(names) // 2])
        yield RELIABLE, [name for name in names if name in half], self._teacher(SUPERVISED)
        if stage.name == ALL:
            yield ALL, [name for name in names if name not in half], self._teacher(RELIABLE)

    def _teacher(self, stage: str) -> str:
        """The kept network of a training that predicts masks for the next one."""
        return f"{stage}-{self._settings.teacher.value}"

    @property
    def _settings(self) -> StPlusPlusConfig:
        return self.context.config.method.st_plusplus
