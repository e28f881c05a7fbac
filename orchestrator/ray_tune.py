"""Ray Tune as the scheduler of one launch: it starts what the queue hands out, and forgets it."""

import json
import uuid
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from orchestrator.hang_guard import found_dead, newest_attempt
from orchestrator.options import LaunchOptions
from orchestrator.queue import Queue
from orchestrator.ray_cluster import Cluster
from orchestrator.trial import Outcome, Trial

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
    from orchestrator.backends import ray_train

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
        outcome = found_dead(trial, before) if is_lost else Outcome.from_json(str(text))
        self._queue.settle(trial.key, outcome)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing that anybody reads: what is done stands in the results."""
        with open(checkpoint_path, "w") as file:  # noqa: PTH123 - Tune's signature, a str
            json.dump({}, file)

    def restore(self, checkpoint_path: str) -> None:
        """Forget nothing, since nothing was saved."""
