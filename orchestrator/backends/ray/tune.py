"""Ray Tune as the controller of cells in Slurm, alone or beside cells on Ray.

A Slurm cell's Tune trial only watches: the dispatcher submits ahead, all jobs at once and as
arrays, and Tune gets a trial for a cell as soon as its job runs or has ended. So there are a few
waiting processes, not one per queued job.
"""

import json
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from orchestrator.backends.ray.cluster import Cluster
from orchestrator.backends.slurm.dispatcher import Dispatcher
from orchestrator.execution.queue import Queue
from orchestrator.execution.watchdog import newest_attempt, outcome_of_dead_process
from orchestrator.options import LaunchOptions
from orchestrator.trial import Outcome, Trial

_LOOK_SECONDS = 0.5
_LEAVE = "leave"


def run(trial: Trial) -> Outcome:
    """Wait until the dispatcher has judged the trial's job, or the launch leaves it alone."""
    folder = Path(trial.scratch)
    path = _outcome_path(folder, trial)
    while not path.exists():
        if (folder / _LEAVE).exists():
            return Outcome("stopped", error_text="its job goes on in Slurm")
        time.sleep(_LOOK_SECONDS)
    outcome = Outcome.from_json(path.read_text())
    path.unlink()
    return outcome


def write_outcome(folder: Path, trial: Trial, outcome: Outcome) -> None:
    """Let the trial that waits for it return."""
    path = _outcome_path(folder, trial)
    part = path.with_suffix(".tmp")
    part.write_text(outcome.to_json())
    part.replace(path)


def write_stop(folder: Path) -> None:
    """Let every waiting trial return; the jobs go on."""
    (folder / _LEAVE).touch()


def _outcome_path(folder: Path, trial: Trial) -> Path:
    """Where the judged outcome of a trial is laid down."""
    return folder / f"outcome-{trial.key}.json"


# The actor of a worker group only waits for it: no CPU, or the group would lack it. Every Ray has
# this resource on its head node, which is the safe place to wait.
_WAITING = {"cpu": 0.0, "node:__internal_head__": 0.001}


def drain(queue: Queue, options: LaunchOptions, cluster: Cluster) -> None:
    """Run the queue until it is over."""
    inside = runs_inside_actor(options, cluster)
    resources = {"cpu": float(options.cpus_per_rank)} if inside else _WAITING
    tuner = tune.Tuner(
        tune.with_resources(_body, resources),
        tune_config=tune.TuneConfig(
            search_alg=_Feeder(queue, inside=inside),
            num_samples=-1,  # until the feeder says that it is over
            reuse_actors=True,  # a new actor per trial costs a second, a reused one a fifteenth
            trial_dirname_creator=_trial_folder,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{uuid.uuid4().hex[:8]}", storage_path=str(cluster.scratch), verbose=0
        ),
    )
    tuner.fit()


def runs_inside_actor(options: LaunchOptions, cluster: Cluster) -> bool:
    """Whether a trial runs in its Tune actor itself and not in processes of its own."""
    wants_gpu = options.gpus_per_rank > 0 or (options.gpus_per_rank < 0 and cluster.gpus > 0)
    return options.workers == "auto" and options.ranks == 1 and not wants_gpu


def _body(config: dict[str, Any]) -> None:
    """What the actor of one trial does."""
    from orchestrator.backends.ray import train as ray_train

    trial = Trial.from_json(config["trial"])
    trial.enter_cwd()
    outcome = ray_train.run(trial, in_this_process=config["inside"])
    tune.report({"outcome": outcome.to_json()})


def _trial_folder(trial: Any) -> str:
    return str(trial.trial_id)


class _Feeder(Searcher):
    """Hands Tune the next trial when a place is free; every answer goes back to the queue."""

    def __init__(self, queue: Queue, *, inside: bool) -> None:
        super().__init__()
        self._queue = queue
        self._inside = inside
        self._given: dict[str, tuple[Trial, int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher, and nobody reads that file."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial; nothing for now, or FINISHED."""
        if self._queue.is_over:
            return Searcher.FINISHED
        trial = self._queue.take()
        if trial is None:
            return None
        self._given[trial_id] = (trial, newest_attempt(trial))
        return {"trial": trial.to_json(), "inside": self._inside}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Give the place back."""
        trial, before = self._given.pop(trial_id, (None, 0))
        if trial is None:
            return
        text = (result or {}).get("outcome")
        is_lost = error or text is None
        outcome = (
            outcome_of_dead_process(trial, before) if is_lost else Outcome.from_json(str(text))
        )
        self._queue.settle(trial.key, outcome)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing that anybody reads: what is done stands in the results."""
        with open(checkpoint_path, "w") as file:  # noqa: PTH123 - Tune's signature, a str
            json.dump({}, file)

    def restore(self, checkpoint_path: str) -> None:
        """Forget nothing, since nothing was saved."""


NUM_WATCHERS = 4  # Tune trials that wait for running jobs; one more takes those that ended
_STEP_SECONDS = 1.0
_HEAD = {"node:__internal_head__": 0.001}  # a waiting process costs no CPU


@dataclass
class Watched:
    """Cells in Slurm as Tune sees them.

    Attributes:
        dispatcher: submits and judges; runs in a thread.
        scratch: folder through which outcomes reach the waiting trials.
    """

    dispatcher: Dispatcher
    scratch: Path
    _running: deque[Trial] = field(default_factory=deque)
    _ended: deque[Trial] = field(default_factory=deque)
    _shown: dict[str, Trial] = field(default_factory=dict)  # has a Tune trial
    _outcomes: dict[str, Outcome] = field(default_factory=dict)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self._show = self.dispatcher.started
        self.dispatcher.started = self._on_start
        self.dispatcher.finish = self._on_end

    def next(self) -> Trial | None:
        """A cell that Tune should see now: ended ones first."""
        if self._ended:
            trial = self._ended.popleft()
        elif self._running and len(self._shown) < NUM_WATCHERS:
            trial = self._running.popleft()
        else:
            return None
        self._shown[trial.key] = trial
        return replace(trial, scratch=str(self.scratch))

    def settle(self, key: str, outcome: Outcome) -> None:
        """A watching trial returned."""
        self._shown.pop(key)
        self._outcomes.pop(key, None)
        self.dispatcher.queue.settle(key, outcome)

    def lost(self, key: str) -> None:
        """A watching process died; the job is none the worse for it."""
        trial = self._shown.pop(key)
        outcome = self._outcomes.get(key)
        if outcome is None:
            self._running.append(trial)
        else:
            write_outcome(self.scratch, trial, outcome)
            self._ended.append(trial)

    def loop(self, stop: threading.Event) -> None:
        """Dispatch until told to stop; what breaks is raised by the controller."""
        try:
            while not stop.wait(_STEP_SECONDS) and not self.dispatcher.queue.is_stopping():
                self.dispatcher.step()
        except BaseException as error:  # noqa: BLE001 - carried to the main thread
            self.error = error
        write_stop(self.scratch)

    def _on_start(self, trial: Trial) -> None:
        self._show(trial)
        if trial.key not in self._shown and trial not in self._running:
            self._running.append(trial)

    def _on_end(self, key: str, outcome: Outcome) -> None:
        trial = self.dispatcher.queue.running[key]
        self._outcomes[key] = outcome
        write_outcome(self.scratch, trial, outcome)
        if trial in self._running:
            self._running.remove(trial)
        if key not in self._shown:
            self._ended.append(trial)


def drain_with_tune(watched: Watched, on_ray: Queue | None, *, inside: bool, cpus: int) -> None:
    """Run both queues until they are over.

    Args:
        watched: the cells in Slurm.
        on_ray: cells for Ray itself.
        inside: whether a Ray cell runs in its Tune actor.
        cpus: of such an actor.
    """
    ray_bundle = {"CPU": float(cpus)} if inside else _HEAD

    def resources(config: dict[str, Any]) -> Any:
        bundle = _HEAD if config["place"] == "slurm" else ray_bundle
        return tune.PlacementGroupFactory([bundle])

    tuner = tune.Tuner(
        tune.with_resources(_body_slurm_tune, resources),
        tune_config=tune.TuneConfig(
            search_alg=_Feeder_slurm_tune(watched, on_ray, inside=inside),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=f"tune-{uuid.uuid4().hex[:8]}", storage_path=str(watched.scratch), verbose=0
        ),
    )
    stop = threading.Event()
    thread = threading.Thread(target=watched.loop, args=(stop,), daemon=True, name="dispatcher")
    thread.start()
    try:
        tuner.fit()
    finally:
        stop.set()
        thread.join()
    if watched.error is not None:
        raise watched.error


def _body_slurm_tune(config: dict[str, Any]) -> None:
    """What the actor of one trial does."""
    from orchestrator.backends.ray import train as ray_train

    trial = Trial.from_json(config["trial"])
    trial.enter_cwd()
    if config["place"] == "slurm":
        outcome = run(trial)
    else:
        outcome = ray_train.run(trial, in_this_process=config["inside"])
    tune.report({"outcome": outcome.to_json()})


class _Feeder_slurm_tune(Searcher):
    """Hands Tune what runs or ended in Slurm, and what may start on Ray."""

    def __init__(self, watched: Watched, on_ray: Queue | None, *, inside: bool) -> None:
        super().__init__()
        self._watched = watched
        self._on_ray = on_ray
        self._inside = inside
        self._given: dict[str, tuple[str, Trial, int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher, and nobody reads that file."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial; nothing for now, or FINISHED."""
        in_slurm = self._watched.dispatcher.queue
        is_leaving = in_slurm.is_stopping() and not self._is_busy_on_ray()
        if is_leaving or self._watched.error or (in_slurm.is_over and not self._is_busy_on_ray()):
            return Searcher.FINISHED
        place, trial = "slurm", self._watched.next()
        if trial is None and self._on_ray is not None:
            place, trial = "ray", self._on_ray.take()
        if trial is None:
            return None
        self._given[trial_id] = (place, trial, newest_attempt(trial))
        return {"trial": trial.to_json(), "place": place, "inside": self._inside}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Give the outcome to the cell's queue."""
        place, trial, before = self._given.pop(trial_id, ("", None, 0))
        if trial is None:
            return
        text = (result or {}).get("outcome")
        is_lost = error or text is None
        if place == "slurm" and is_lost:
            self._watched.lost(trial.key)
        elif place == "slurm":
            self._watched.settle(trial.key, Outcome.from_json(str(text)))
        elif self._on_ray is not None:
            outcome = (
                outcome_of_dead_process(trial, before) if is_lost else Outcome.from_json(str(text))
            )
            self._on_ray.settle(trial.key, outcome)

    def _is_busy_on_ray(self) -> bool:
        return self._on_ray is not None and not self._on_ray.is_over

    def save(self, checkpoint_path: str) -> None:
        """Write nothing that anybody reads: what is done stands in the results."""
        with open(checkpoint_path, "w") as file:  # noqa: PTH123 - Tune's signature, a str
            json.dump({}, file)

    def restore(self, checkpoint_path: str) -> None:
        """Forget nothing, since nothing was saved."""
