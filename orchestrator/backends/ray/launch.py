"""The back end on Ray: an own local Ray or a joined cluster, with Ray Tune as the controller."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from fnmatch import fnmatch

from datasets.wording import quantity
from orchestrator.backends.base import LaunchContext, Pool, PoolEvent
from orchestrator.backends.ray.cluster import Cluster, scratch_folder
from orchestrator.backends.ray.messages import Connect, Death
from orchestrator.backends.ray.supervisor import RaySupervisor
from orchestrator.display.format import cells_text
from orchestrator.execution.watchdog import (
    newest_attempt,
    outcome_of_dead_process,
    recorded_outcome,
)
from orchestrator.failures import Failure
from orchestrator.options import LaunchOptions
from orchestrator.planning.cards import check_cards, largest_of, share_of
from orchestrator.storage.open import root_of
from orchestrator.trial import Trial
from trainer.config.compose import from_json
from trainer.config.fingerprint import without_seed

detaches = False
ignores = ("to_ray", "to_slurm", "slurm")


@contextmanager
def pools(context: LaunchContext) -> Iterator[Sequence[Pool]]:
    """Ray as the only pool.

    Raises:
        ClusterUnreachable: no Ray answers.
        ValueError: one trial asks for more than the whole cluster has.
    """
    options = context.options
    with connected_tune(context) as tune:
        pool, cluster = RayPool(context, tune), tune.cluster
        where = "own local Ray" if cluster.is_own else f"Ray at {options.ray_address}"
        context.screen.message(
            f"{cells_text(len(context.trials))}, {pool.slots} at once, "
            f"{quantity(options.ranks, 'rank')} each, on {cluster.cpus:g} CPUs and "
            f"{cluster.gpus:g} GPUs of {where}"
        )
        yield [pool]


@contextmanager
def connected_tune(context: LaunchContext) -> Iterator[RaySupervisor]:
    """Start or join Ray, with Ray Tune on it, until the block ends.

    Raises:
        ClusterUnreachable: no Ray answers.
    """
    # Absolute: the process that holds Ray has another working folder.
    folder, address = context.folder.resolve(), context.options.ray_address
    what = f"Joining the Ray at ray_address={address}" if address else "Starting Ray"
    with scratch_folder(context.options, folder / "scratch") as scratch:
        with context.screen.waiting(f"{what}, which takes up to two minutes on a busy machine"):
            tune = RaySupervisor(
                Connect(context.options, scratch, context.code),
                folder / "ray.log",
                on_message=lambda text: context.screen.message(text, "yellow"),
                is_stopping=context.stop.is_asked,
            )
        with closing(tune):
            yield tune


class RayPool(Pool):
    """Cells as trials of Ray Tune.

    Args:
        context: of the launch.
        tune: the running Tune.
        only: keys of the cells that may run here, as a glob.

    Raises:
        ValueError: one trial asks for more than the whole cluster has.
    """

    def __init__(self, context: LaunchContext, tune: RaySupervisor, *, only: str = "*") -> None:
        self._tune = tune
        self._options = context.options
        self._gpus = gpus_per_rank(context.options, tune.cluster)
        self._only = only
        if self._gpus and not context.options.gpu_memory_gb:
            _check_cards_of_ray(context, tune.cluster)
        self._accepted = [trial for trial in context.trials if self.accepts(trial)]
        self._screen = context.screen
        self._counted = tune.cluster
        self.slots = self._count()
        self._trials: dict[str, tuple[Trial, int]] = {}  # with the newest attempt before the start

    def accepts(self, trial: Trial) -> bool:
        """Whether the cell's key is among those that may run here."""
        return fnmatch(trial.key, self._only)

    def prepare(self, trial: Trial) -> Trial:
        """The trial with its GPUs and cores, and with a folder that all nodes see."""
        cluster, trial = self._tune.cluster, trial.on_gpus(self._gpus)
        cpus = self._options.fixed_cpus or min(
            trial.cpus_per_rank, cpu_share(self._options, cluster, self._gpus)
        )
        return replace(trial, backend="ray", cpus_per_rank=cpus, scratch=str(cluster.scratch))

    def start(self, trials: Sequence[Trial]) -> None:
        """Hand cells to Tune."""
        for trial in trials:
            self._trials[trial.key] = (trial, newest_attempt(trial))
            self._tune.submit(trial, "run")

    def poll(self) -> Iterator[PoolEvent]:
        """Starts and ends as Tune reports them; for a process that died, what its files say."""
        self._tune.poll()
        self._follow_cluster()
        for key in self._tune.begun():
            yield PoolEvent(key, "running")
        for key in self._tune.returned():
            trial, newest = self._trials.pop(key)
            # What the attempt wrote before its Ray died counts; else the cell simply waits again.
            written = recorded_outcome(root_of(trial), key, newest)
            if written is not None and written.failure != Failure.node_lost.value:
                yield PoolEvent(key, "ended", written)
            else:
                yield PoolEvent(key, "no room")
        for key, outcome in self._tune.ended("run"):
            trial, newest = self._trials.pop(key)
            if isinstance(outcome, Death):
                outcome = outcome_of_dead_process(trial, newest, outcome.failure, outcome.reason)
            yield PoolEvent(key, "ended", outcome)

    def _count(self) -> int:
        """How many cells the cluster holds at once."""
        cpus = max((self.prepare(trial).cpus_per_rank for trial in self._accepted), default=1)
        return count_slots(self._options, self._counted, cpus=cpus, gpus=self._gpus)

    def _follow_cluster(self) -> None:
        """Offer the slots of what the cluster has now, after nodes came or went."""
        if self._tune.cluster == self._counted:
            return
        self._counted = self._tune.cluster
        try:
            slots = self._count()
        except ValueError:
            slots = 0  # for now; the cells wait until a node is added
        if slots != self.slots:
            self._screen.message(
                f"Ray has {self._counted.cpus:g} CPUs and {self._counted.gpus:g} GPUs now: "
                + (f"{cells_text(slots)} at once" if slots else "cells wait until it has more"),
                "yellow",
            )
        self.slots = slots


def _check_cards_of_ray(context: LaunchContext, cluster: Cluster) -> None:
    """Refuse cells that fit no card of the cluster, as far as Ray says what cards it has.

    Raises:
        ValueError: says what would fit.
    """
    # Cells that differ in their seed alone need the same.
    kinds = {without_seed(trial.config_json): trial for trial in context.trials}
    configs = {trial.key: from_json(trial.config_json) for trial in kinds.values()}
    card = share_of(context.options, largest_of(cluster.cards))
    check_cards(configs, context.options, card)


def gpus_per_rank(options: LaunchOptions, cluster: Cluster) -> float:
    """The number that the options give; otherwise one where the cluster has GPUs."""
    if options.gpus_per_rank >= 0:
        return options.gpus_per_rank
    return 1.0 if cluster.gpus >= 1 else 0.0


def cpu_share(options: LaunchOptions, cluster: Cluster, gpus: float) -> int:
    """Most cores that a rank may reserve without another rank or a GPU being left out."""
    num_ranks = max(options.ranks, int(cluster.gpus // gpus) if gpus else 0)
    return max(1, int(cluster.cpus // num_ranks))


def count_slots(options: LaunchOptions, cluster: Cluster, *, cpus: int, gpus: float) -> int:
    """How many trials the cluster holds at once.

    Args:
        options: of the launch.
        cluster: what there is.
        cpus: cores of one rank.
        gpus: of one rank.

    Raises:
        ValueError: not even one.
    """
    limits = [int(cluster.cpus // (options.ranks * cpus))]
    if gpus:
        limits.append(int(cluster.gpus // (options.ranks * gpus)))
    if min(limits) < 1:
        raise ValueError(
            f"One cell asks for {options.ranks} ranks with {cpus} CPUs and "
            f"{gpus:g} GPUs each; the cluster has {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs. "
            "Lower ranks, cpus_per_rank or gpus_per_rank."
        )
    return min(*limits, options.concurrency) if options.concurrency else min(limits)
