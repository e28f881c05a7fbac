"""The training loop: one optimiser step after another, with logging, evaluation and checkpoints.

A step depends on the state and the step's number only, so a run may stop after any step and resume
to the same weights.
"""

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from datasets.dataset import Dataset, check_unchanged
from datasets.loading.batches import LabelledBatch, UnlabelledBatch, ViewPlan
from trainer.checkpoint import CheckpointError, Checkpoints
from trainer.checkpoint_manifest import STAGES
from trainer.config.schema import TrainConfig
from trainer.determinism import checksums
from trainer.distributed import Ranks
from trainer.evaluate import evaluate
from trainer.feed import batch_plan, feed, to_device
from trainer.methods.interface import Method, Position, Preempted, StageInput, StepInput
from trainer.network.deeplab import mean_of
from trainer.run_log import RunLog
from trainer.schedule import Schedule, Stage, inter_pixel_weight, learning_rate
from trainer.state import TrainState, empty_networks, new_state
from trainer.step.graph import step_of


class Diverged(RuntimeError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class StepReport:
    """A finished step, as the `on_step` callback of `trainer.run.train` receives it.

    Attributes:
        state: after the step; the callback must not change it.
        terms: this rank's shares of the loss and of its parts, detached scalars; summed over ranks
            they are the values of the global batch.
        labelled: this rank's labelled images of the step.
        unlabelled: this rank's unlabelled images of the step; None for the supervised method.
    """

    state: TrainState
    terms: dict[str, Tensor]
    labelled: LabelledBatch
    unlabelled: UnlabelledBatch | None


@dataclass
class Loop:
    """One run from its current step to the last.

    Attributes:
        schedule: the stages of the run.
        on_step: called after every step, before it is logged, scored or saved.
        heartbeat: called with "step", "evaluation" or "checkpoint" after each step and validation
            batch and before each checkpoint, so that a watcher can tell a slow run from a hung one.
    """

    config: TrainConfig
    ranks: Ranks
    dataset: Dataset
    state: TrainState
    checkpoints: Checkpoints
    run_log: RunLog
    schedule: Schedule
    on_step: Callable[[StepReport], None] | None = None
    heartbeat: Callable[[str], None] | None = None
    _stage: Stage = field(init=False)
    _saved_at: float = 0.0
    _clock: float = 0.0
    _bad_step: Tensor | None = None
    _recent: deque[tuple[int, tuple[str, ...]]] = field(default_factory=deque)

    def run(self, should_stop: Callable[[], bool] | None = None) -> bool:
        """Train to the end, or to the step at which `should_stop` of rank 0 answers True.

        Returns:
            Whether the run is complete.

        Raises:
            Diverged: the loss became NaN or infinite.
        """
        self._saved_at = self._clock = time.monotonic()
        self._recent = deque(maxlen=self.config.run.log_steps + 1)
        # -1 while every loss was finite, else the first step with a bad one; kept on the device.
        self._bad_step = torch.full((), -1, device=self.ranks.device, dtype=torch.int64)
        for stage in self.schedule.stages:
            if self.state.step >= stage.end:
                continue
            self._stage = stage
            try:
                self._train_stage(should_stop or (lambda: False))
            except Preempted:
                self._end()
                return False
            self._end()
        return True

    def _train_stage(self, should_stop: Callable[[], bool]) -> None:
        """Do the work before the current stage and the steps of it; raises `Preempted`."""
        step = step_of(self.config, self.ranks, self.state)
        dataset = self._begin_stage(step.method, should_stop)
        for labelled, unlabelled in self._batches(dataset, step.method.views()):
            self._remember(labelled, unlabelled)
            given = self._given(step.method, labelled, unlabelled)
            terms = step(given, weight=self._weight(), rate=self._rate(self.state.step))
            self._note_bad(terms["loss"])
            self.state.step += 1
            self._renew_hint(step.method)
            self._beat("step")
            if self.on_step is not None:
                self.on_step(StepReport(self.state, terms, labelled, unlabelled))
            self._after_step(terms, step.method)
            if self.state.step < self.schedule.total_steps:
                self._stop_if(should_stop)

    def _stop_if(self, should_stop: Callable[[], bool]) -> None:
        """Raise `Preempted` on all ranks where `should_stop` of rank 0 answers True."""
        # Rank 0 decides for all: ranks that stop at different steps would wait for ever.
        if self.ranks.broadcast_bool(should_stop()):
            raise Preempted

    def _begin_stage(self, method: Method, should_stop: Callable[[], bool]) -> Dataset:
        """The images of the current stage; at its first step, networks and memory begin anew."""
        stage, state, folder = self._stage, self.state, self.checkpoints.run_folder / STAGES

        def tick(work: str, done: int, total: int) -> None:
            self._beat("evaluation")
            self._progress(force=done == total, work=f"{work} {done}/{total}")
            self._stop_if(should_stop)

        if not state.step:
            shutil.rmtree(folder, ignore_errors=True)  # of a run whose checkpoints are gone
        start = method.before_stage(StageInput(stage, self.dataset, folder, self._kept, tick))
        known = state.products.get(stage.name, start.digest)
        if known != start.digest:
            raise CheckpointError(
                f"{folder} holds other products than those with which stage {stage.name} began "
                f"({start.digest[:8]}, then {known[:8]}). Remove it, and they are made again; or "
                f"remove {folder.parent} to start again from step 0."
            )
        if start.digest:
            state.products[stage.name] = start.digest
        if 0 < stage.start == state.step:
            dataset = self.dataset
            unlabelled = len(dataset.split.unlabelled)
            fresh = new_state(
                self.config, dataset.num_classes, self.ranks, num_unlabelled=unlabelled
            )
            kept = {name: self._kept(other) for name, other in start.kept.items()}
            state.begin_again(fresh, kept)
        return start.dataset

    def _kept(self, name: str) -> nn.Module:
        """A network that was kept, the same on all ranks, of which rank 0 reads it."""
        network = mean_of(empty_networks(self.config, self.dataset.num_classes))
        weights = self.checkpoints.kept_weights(name) if self.ranks.is_first else {}
        if self.ranks.broadcast_bool(weights is None):
            raise CheckpointError(
                f"{self.checkpoints.folder / name}.pt, a network of an earlier stage, is missing "
                f"or damaged. Remove {self.checkpoints.run_folder} to start again from step 0."
            )
        if weights:
            network.load_state_dict(weights)
        network = network.to(self.ranks.device).eval()
        self.ranks.broadcast(network.state_dict().values())
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _beat(self, phase: str) -> None:
        if self.heartbeat is not None:
            self.heartbeat(phase)

    def _end(self) -> None:
        """Save the last checkpoint of this call; no rank returns before it is on the disk."""
        self._save()
        self.checkpoints.finish()
        self.ranks.broadcast_bool(True)  # a barrier: rank 0 asks only after its write has ended

    def _batches(
        self, dataset: Dataset, views: ViewPlan
    ) -> Iterator[tuple[LabelledBatch, UnlabelledBatch | None]]:
        """The batches of the current stage that are still to do; with hints, epoch after epoch."""
        bits = next(iter(self.state.networks.values())).num_channel_bits
        while (start := self._into_stage) < self._stage.steps:
            hint, stop = to_device(self.state.hint, torch.device("cpu")), self._stage.steps
            if hint is not None:
                stop = start - start % self._stage.epoch_steps + self._stage.epoch_steps
            plan = batch_plan(
                self.config,
                self.ranks,
                steps=range(start, stop),
                num_channel_bits=bits,
                views=views,
                hint=hint,
            )
            yield from feed(self.config, dataset, self.ranks, plan)

    def _renew_hint(self, method: Method) -> None:
        """After an epoch, tell the loader of the next one what the method's memory says now."""
        if self.state.hint is not None and self._into_stage % self._stage.epoch_steps == 0:
            self.state.hint = method.hint(self.state.memory)

    def _given(
        self, method: Method, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None
    ) -> StepInput:
        """What the method gets at this step."""
        labelled_steps = max(len(self.dataset.split.labelled) // self.config.batch, 1)
        stage = self._stage
        position = Position(self._into_stage, stage.epoch_steps, stage.steps, labelled_steps)
        numbers = method.numbers(position)
        return StepInput(self.state.networks, self.state.memory, labelled, unlabelled, numbers)

    def _weight(self) -> float:
        """Alpha of Eq. 6 at this step, ramp included.

        The ablation A5 (docs/ambiguities.md) puts it inside UniMatch's division of its loss by two.
        """
        epoch_steps = self._stage.epoch_steps
        weight = inter_pixel_weight(self.config.loss, self._into_stage, epoch_steps)
        return weight / 2.0 if self.config.loss.inside_half else weight

    def _rate(self, step: int) -> float:
        """Rate of the backbone at a step of the run, which lies in the current stage."""
        return learning_rate(self.config, step - self._stage.start, self._stage.steps)

    @property
    def _into_stage(self) -> int:
        """Steps of the current stage that are done."""
        return self.state.step - self._stage.start

    def _note_bad(self, loss: Tensor) -> None:
        """Note this step if its loss is the first bad one.

        Reading the loss here would make the host wait for the device in every step. The note stays
        on the device instead and is read when a line is logged.
        """
        assert self._bad_step is not None
        fine = torch.isfinite(loss) | (self._bad_step >= 0)
        self._bad_step = torch.where(fine, self._bad_step, self.state.step)

    def _after_step(self, terms: dict[str, Tensor], method: Method) -> None:
        """Log, evaluate, keep and save, each where it is due after this step."""
        step, run, stage = self.state.step, self.config.run, self._stage
        epoch, into_epoch = divmod(self._into_stage, stage.epoch_steps)
        ends_epoch = into_epoch == 0
        if step % run.log_steps == 0 or ends_epoch:
            self._log(terms)
        if ends_epoch and (epoch % self.config.evaluation.every_epochs == 0 or step == stage.end):
            self._evaluate(stage.first_epoch + epoch)
        if ends_epoch and self.ranks.is_first:
            for name, kept in method.kept_epochs(stage).items():
                if kept == epoch:
                    weights = {"step": step, "weights": self.state.weights()}
                    self.checkpoints.keep(f"{stage.name}-{name}", weights)
            if step == stage.end < self.schedule.total_steps:
                self.checkpoints.keep_best(f"{stage.name}-best")
        self._progress(force=ends_epoch)
        elapsed = time.monotonic() - self._saved_at > 60.0 * run.checkpoint_minutes
        due = bool(run.checkpoint_steps) and step % run.checkpoint_steps == 0
        # The clocks of the ranks differ, so rank 0's decides: all ranks must save at the same step,
        # because the check of the loss in `_save` gathers from all of them.
        if step < stage.end and self.ranks.broadcast_bool(elapsed or due):
            self._save()

    def _log(self, terms: dict[str, Tensor]) -> None:
        """Append this step's terms over the global batch to metrics.jsonl."""
        self._check_finite()
        values = self.ranks.sum(torch.stack([value.float() for value in terms.values()]))
        step = self.state.step
        rate = self._rate(step - 1)
        if self.ranks.is_first:
            named = dict(zip(terms, values.tolist(), strict=True))
            stage = self._stage
            epoch = stage.first_epoch + self._into_stage / stage.epoch_steps
            self.run_log.metric(step=step, epoch=epoch, lr=rate, **named)

    def _evaluate(self, epoch: int) -> None:
        """Score the epoch on the validation set; save its weights if it is the best so far.

        The best epoch is chosen on the validation set, as the UniMatch code does (A28).
        """
        state = self.state
        # An evaluation may last long; each of its forwards shows that the run is alive.
        network = state.deployed_network()
        hook = network.register_forward_pre_hook(lambda *_: self._beat("evaluation"))
        score = evaluate(network, self.dataset, self.config, self.ranks)
        hook.remove()
        state.add_score(epoch, score)
        if not self.ranks.is_first:
            return
        self.run_log.metric(
            step=state.step,
            epoch=epoch,
            miou_percent=score.miou_percent,
            iou_percent=list(score.iou_percent),
        )
        best = state.best_epoch
        assert best is not None
        self.run_log.confusion(
            best=(best, state.scores[best].confusion), last=(epoch, score.confusion)
        )
        if best == epoch:
            self.checkpoints.save_best({"step": state.step, "weights": state.weights()})

    def _save(self) -> None:
        """Save this step, after a check that losses were finite and the data are the same.

        So the newest checkpoint of a diverged run is from before the divergence, and a result is
        of the images and masks that its row names.
        """
        self._beat("checkpoint")
        self._check_finite()
        self._check_equal()
        now = time.monotonic()
        self.state.seconds += now - self._clock
        self._clock = now
        if self.ranks.is_first:
            check_unchanged(self.dataset)
            self.checkpoints.save(self.state.pack())
            self._progress(force=True)
        self._saved_at = time.monotonic()

    def _progress(self, *, force: bool, work: str = "") -> None:
        if not self.ranks.is_first:
            return
        state, best = self.state, self.state.best_epoch
        last = state.scores[max(state.scores)].miou_percent if state.scores else None
        halves = 2 if self.config.method.facts.needs_unlabelled else 1
        self.run_log.progress(
            state.step,
            images=self.config.batch * halves,
            force=force,
            work=work,
            epoch=self.schedule.epochs_done(state.step),
            miou_percent=last,
            best_miou_percent=None if best is None else state.scores[best].miou_percent,
        )

    def _remember(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None) -> None:
        """Keep the image ids of the last steps, to name those of a step whose loss diverged."""
        ids = labelled.ids
        if unlabelled is not None:
            ids += (*unlabelled.ids, *unlabelled.mix_ids)
        ids = tuple(dict.fromkeys(ids))  # the CutMix partner is often the same photograph
        self._recent.append((self.state.step, ids))

    def _check_finite(self) -> None:
        """Raise `Diverged` on every rank when the loss of some rank became NaN or infinite."""
        assert self._bad_step is not None
        rows = self.ranks.gather(self._bad_step).tolist()
        bad = min((row for row in rows if row >= 0), default=None)
        if bad is None:
            return
        ids = next((", ".join(names) for step, names in self._recent if step == bad), "unknown")
        raise Diverged(
            f"The loss of step {bad} is not a number; samples on rank {self.ranks.rank}: {ids}. "
            "Lower optim.lr or loss.alpha, or look at these images; the last checkpoint is sound."
        )

    def _check_equal(self) -> None:
        """Raise `CheckpointError` on every rank when some tensor of the state differs between them.

        Rank 0 alone writes the checkpoint, from which all would go on.
        """
        if self.ranks.world_size == 1:
            return
        tensors = self.state.tensors()
        rows = self.ranks.gather(checksums(tensors)).cpu()
        differing = (rows != rows[0]).any(0).tolist()
        names = [name for name, differs in zip(tensors, differing, strict=True) if differs]
        if names:
            raise CheckpointError(
                f"The ranks differ at step {self.state.step} in {', '.join(names[:3])} "
                f"({len(names)} of {len(tensors)} tensors), so no checkpoint was written. What "
                "`after` puts into the memory must come from gathered or summed tensors."
            )
