"""The interface of a method: what it asks for, what it gets at every step, and what it returns.

docs/developing/writing_a_method.md shows how a method is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from datasets.dataset import Dataset
from datasets.loading.batches import LabelledBatch, UnlabelledBatch, ViewPlan
from datasets.loading.hint import Hint
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.network.deeplab import DeepLabV3Plus
from trainer.network.heads import Head
from trainer.schedule import Stage


@dataclass(frozen=True)
class NetworkSpec:
    """One network of a method, as it is before step 0.

    Attributes:
        is_trained: whether gradients and an optimiser move it. Else it has no gradient and is in
            evaluation mode; `Method.after` moves it (an averaged teacher) or nothing does (a
            frozen one).
        copy_of: the network whose first weights it takes; empty draws its own.
        head_key: another text draws another head.
        backbone_key: another text draws another backbone, which is not loaded even where
            `model.init` says so; empty: the backbones of all networks start equal.
        heads: what it gives beside its logits, by `DeepLabV3Plus.outputs`; a copy has the same.
        decays_all: whether weight decay is on every parameter, or on the weights of convolutions
            only, not on biases and batch normalisation.
    """

    is_trained: bool = True
    copy_of: str = ""
    head_key: str = ""
    backbone_key: str = ""
    heads: tuple[Head, ...] = ()
    decays_all: bool = True


@dataclass(frozen=True)
class Position:
    """Where in its run a step is; of a method of several stages, where in its stage.

    Attributes:
        step: optimiser steps done before it.
        epoch_steps: optimiser steps per epoch.
        total_steps: optimiser steps of all epochs.
        labelled_epoch_steps: optimiser steps in one pass over the labelled list, at least one.
    """

    step: int
    epoch_steps: int
    total_steps: int
    labelled_epoch_steps: int = 1


@dataclass(frozen=True)
class StepInput:
    """What a method gets at one step.

    Attributes:
        networks: by the names that `Method.networks` gives; trained ones are in training mode.
        memory: by the names that `Method.memory` gives; only `Method.after` may change it.
        labelled: this rank's images with masks.
        unlabelled: this rank's other images; None where the method needs none.
        numbers: what `Method.numbers` gives for this step; scalar tensors under `run.graph=step`.
    """

    networks: dict[str, DeepLabV3Plus]
    memory: dict[str, Tensor]
    labelled: LabelledBatch
    unlabelled: UnlabelledBatch | None
    numbers: Mapping[str, float | Tensor] = field(default_factory=dict)

    @property
    def student(self) -> DeepLabV3Plus:
        """The network of that name, which all methods have but those that train several."""
        return self.networks["student"]


@dataclass(frozen=True)
class TeacherStudentPair:
    """Logits of teacher (p) and student (q) on the same pixels, as Eq. 2 compares them.

    Attributes:
        view: its name among the `pairs` of the method's facts, or labelled.
        teacher: logits (B, C, H, W), detached.
        student: logits (B, C, H, W).
        valid: (B, H, W) bool, False on padding.
        box: (B, H, W) bool, the pasted region; None without CutMix.
        num_images: of all ranks, over which the term takes its mean, a scalar; None: those of the
            batch.
    """

    view: str
    teacher: Tensor
    student: Tensor
    valid: Tensor
    box: Tensor | None = None
    num_images: Tensor | None = None


@dataclass(frozen=True)
class StepResult:
    """The losses of one step on this rank.

    Attributes:
        loss: this rank's share of L_o, a scalar; the shares of all ranks add up to it.
        pairs: for the inter-pixel term; empty when the run or this step has none.
        terms: shares of the parts of L_o, detached, for the log.
        kept: detached tensors that `Method.after` needs.
    """

    loss: Tensor
    pairs: tuple[TeacherStudentPair, ...]
    terms: dict[str, Tensor]
    kept: dict[str, Tensor] = field(default_factory=dict)


class Preempted(Exception):
    """The run was asked to stop during the work before a stage."""


@dataclass(frozen=True)
class StageInput:
    """What a method gets before a stage of its run, and again when a run goes on within one.

    Attributes:
        stage: that begins or goes on.
        dataset: of the run.
        folder: for what is made between stages; it may hold that already, whole or in part.
        kept: gives a network that `Method.kept_epochs` kept, in evaluation mode, by its name
            `<stage>-<name>`, or `<stage>-best` for the best epoch of an earlier stage.
        tick: to be called on all ranks together after each part of the work, with its name, the
            parts done and all parts; shows that the run is alive, and raises `Preempted`.
    """

    stage: Stage
    dataset: Dataset
    folder: Path
    kept: Callable[[str], nn.Module]
    tick: Callable[[str, int, int], None]


@dataclass(frozen=True)
class StageStart:
    """With what a stage trains.

    Attributes:
        dataset: its lists and masks.
        kept: for each network that does not begin with its first weights the kept one that it
            begins as, by their names.
        digest: sha256 of what was made before the stage; empty where nothing was.
    """

    dataset: Dataset
    kept: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True)
class MethodContext:
    """The arguments of every method's constructor.

    Attributes:
        config: of the run.
        ranks: those that train together.
        num_unlabelled: images of the unlabelled list, for a memory of each of them; known where
            `Method.memory` is called.
    """

    config: TrainConfig
    ranks: Ranks
    num_unlabelled: int = 0


class Method(Protocol):
    """A semi-supervised method: computes L_o and the pairs of a batch.

    Its classes inherit from it, and so have one trained network called `student`, weak views and
    no memory unless they say otherwise.
    """

    context: MethodContext

    def networks(self) -> dict[str, NetworkSpec]:
        """The networks by name; the names and their order are part of every checkpoint."""
        return {"student": NetworkSpec()}

    def views(self) -> ViewPlan:
        """The views of the images that a step uses; what it does not name is not drawn."""
        return ViewPlan(strong=0, boxes=0, has_partner=False, channel_bits=False)

    def memory(self) -> dict[str, Tensor]:
        """Tensors that last from step to step besides the networks, as they are before step 0.

        They are in every checkpoint and must be equal on all ranks.
        """
        return {}

    def hint(self, memory: Mapping[str, Tensor]) -> Hint | None:
        """What the loader of an epoch must know of the memory; None if its batches need nothing.

        Asked before step 0 and after every epoch. Its tensors are new ones, on the device of the
        memory, and are in every checkpoint.
        """
        return None

    def deployed(self) -> tuple[str, ...]:
        """Names of the networks that are scored and exported; several predict by mean logits."""
        return ("student",)

    def numbers(self, position: Position) -> dict[str, float]:
        """Numbers of a step that depend on its place in the run: a decay, a ramp, a rate.

        A step knows its place by them alone. So what it launches is the same at every step, and
        `run.graph=step` can replay it with other numbers.
        """
        return {}

    def before_stage(self, given: StageInput) -> StageStart:
        """Do the work before a stage, which is done only once, on all ranks together.

        At the start of every stage but the first, networks and memory begin anew.
        """
        return StageStart(given.dataset)

    def kept_epochs(self, stage: Stage) -> dict[str, int]:
        """Epochs of a stage, counted from 1, after which the deployed network is kept.

        By names of ours: the file is `checkpoints/<stage>-<name>.pt`.
        """
        return {}

    def step(self, given: StepInput) -> StepResult:
        """Run the forward passes of one step; the loop runs the backward pass."""

    def after(self, given: StepInput, result: StepResult) -> None:
        """Move averaged networks and change the memory, after the optimiser step, no gradient.

        Args:
            given: as `step` got it; trained networks now have their new weights.
            result: what `step` returned, without its pairs.
        """


def new_method(context: MethodContext) -> Method:
    """The method that a configuration names; only its own file is imported."""
    module, _, name = context.config.method.facts.implementation.rpartition(".")
    method: Method = getattr(import_module(module), name)(context)
    return method
