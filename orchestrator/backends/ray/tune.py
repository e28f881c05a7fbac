"""Ray Tune as the controller of cells in Slurm, alone or beside cells on Ray.

A Slurm cell's Tune trial only watches: the dispatcher submits ahead, all jobs at once and as
arrays, and Tune gets a trial for a cell as soon as its job runs or has ended. So there are a few
waiting processes, not one per queued job.
"""

import json
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from orchestrator.backends import slurm_watch
from orchestrator.backends.slurm_dispatch import Dispatcher
from orchestrator.hang_guard import found_dead, newest_attempt
from orchestrator.queue import Queue
from orchestrator.trial import Outcome, Trial

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
            slurm_watch.lay_down(self.scratch, trial, outcome)
            self._ended.append(trial)

    def loop(self, stop: threading.Event) -> None:
        """Dispatch until told to stop; what breaks is raised by the controller."""
        try:
            while not stop.wait(_STEP_SECONDS) and not self.dispatcher.queue.is_stopping():
                self.dispatcher.step()
        except BaseException as error:  # noqa: BLE001 - carried to the main thread
            self.error = error
        slurm_watch.leave(self.scratch)

    def _on_start(self, trial: Trial) -> None:
        self._show(trial)
        if trial.key not in self._shown and trial not in self._running:
            self._running.append(trial)

    def _on_end(self, key: str, outcome: Outcome) -> None:
        trial = self.dispatcher.queue.running[key]
        self._outcomes[key] = outcome
        slurm_watch.lay_down(self.scratch, trial, outcome)
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
        tune.with_resources(_body, resources),
        tune_config=tune.TuneConfig(
            search_alg=_Feeder(watched, on_ray, inside=inside),
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


def _body(config: dict[str, Any]) -> None:
    """What the actor of one trial does."""
    from orchestrator.backends import ray_train

    trial = Trial.from_json(config["trial"])
    trial.enter_cwd()
    if config["place"] == "slurm":
        outcome = slurm_watch.run(trial)
    else:
        outcome = ray_train.run(trial, in_this_process=config["inside"])
    tune.report({"outcome": outcome.to_json()})


class _Feeder(Searcher):
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
            outcome = found_dead(trial, before) if is_lost else Outcome.from_json(str(text))
            self._on_ray.settle(trial.key, outcome)

    def _is_busy_on_ray(self) -> bool:
        return self._on_ray is not None and not self._on_ray.is_over

    def save(self, checkpoint_path: str) -> None:
        """Write nothing that anybody reads: what is done stands in the results."""
        with open(checkpoint_path, "w") as file:  # noqa: PTH123 - Tune's signature, a str
            json.dump({}, file)

    def restore(self, checkpoint_path: str) -> None:
        """Forget nothing, since nothing was saved."""
