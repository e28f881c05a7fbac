"""Ray Tune as the controller of a launch: one Tune trial for every cell that runs.

Tune's own loop runs in a thread beside the loop of the driver. Two queues connect them: one brings
the trials that Tune may start, the other takes the outcomes back.
"""

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from orchestrator.backends.ray.cluster import Cluster
from orchestrator.backends.ray.messages import Began, Death, Ended, Work
from orchestrator.backends.ray.outcome_files import wait_for_outcome
from orchestrator.failures import Failure, memory_kill
from orchestrator.options import LaunchOptions
from orchestrator.trial import Outcome, Trial

_ANSWER_SECONDS = 0.2  # the loop of the launch needs less to answer an outcome with the next cell
# An actor that only waits, for a worker group or for a job, takes no CPU: the group would lack it.
# Every Ray has this resource on its head node, where an actor does not die with a worker node.
_WAITING = {"node:__internal_head__": 0.001}


class TuneRun:
    """A run of Ray Tune that gets its trials one by one.

    Args:
        options: of the launch.
        cluster: the Ray that runs the trials.
    """

    def __init__(self, options: LaunchOptions, cluster: Cluster) -> None:
        self.cluster = cluster
        self._inside = runs_inside_actor(options, cluster)
        self._feeder = _Feeder()
        self._reporter = _Reporter()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def submit(self, trial: Trial, work: Work) -> None:
        """Let Tune start a trial as soon as it has the resources."""
        self._feeder.waiting.put(
            {
                "trial": trial.to_json(),
                "work": work,
                "inside": self._inside and work == "run",
                "cpus": float(trial.cpus_per_rank),
            }
        )
        if self._thread is None:
            self._thread = threading.Thread(target=self._fit, daemon=True, name="Ray Tune")
            self._thread.start()

    def messages(self) -> Iterator[Began | Ended]:
        """Which trials began and ended since the last call.

        Raises:
            Exception: what broke Tune.
        """
        if self._error is not None:
            raise self._error
        while not self._reporter.messages.empty():
            yield self._reporter.messages.get()

    def close(self) -> None:
        """Let Tune end when its trials have ended."""
        self._feeder.waiting.put(None)
        if self._thread is not None:
            self._thread.join()

    def _fit(self) -> None:
        try:
            self._tuner().fit()
        except BaseException as error:  # noqa: BLE001 - raised by the loop of the driver
            self._error = error

    def _tuner(self) -> tune.Tuner:
        def resources(config: dict[str, Any]) -> Any:
            wanted = {"CPU": config["cpus"]} if config["inside"] else _WAITING
            return tune.PlacementGroupFactory([wanted])

        return tune.Tuner(
            tune.with_resources(_body, resources),
            tune_config=tune.TuneConfig(
                search_alg=self._feeder,
                num_samples=-1,  # until the feeder says that it is over
                reuse_actors=True,  # a new actor per trial costs a second, a reused one 1/15 s
                # The default name holds the configuration, which here is a whole trial as JSON.
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=f"tune-{uuid.uuid4().hex[:8]}",
                storage_path=str(self.cluster.scratch),
                verbose=0,
                callbacks=[self._reporter],
            ),
        )


def runs_inside_actor(options: LaunchOptions, cluster: Cluster) -> bool:
    """Whether a trial runs in its Tune actor itself and not in processes of its own."""
    wants_gpu = options.gpus_per_rank > 0 or (options.gpus_per_rank < 0 and cluster.gpus > 0)
    return options.workers == "auto" and options.ranks == 1 and not wants_gpu


def _body(config: dict[str, Any]) -> None:
    """The function that Tune runs for one trial, in an actor."""
    from orchestrator.backends.ray.train import run_on_ranks

    trial = Trial.from_json(config["trial"])
    trial.enter_cwd()
    if config["work"] == "watch":
        outcome = wait_for_outcome(Path(trial.scratch), trial.key)
    else:
        outcome = run_on_ranks(trial, in_this_process=config["inside"])
    tune.report({"outcome": outcome.to_json()})


class _Reporter(tune.Callback):
    """Tells when trials begin and end."""

    def __init__(self) -> None:
        self.messages: SimpleQueue[Began | Ended] = SimpleQueue()

    def __getstate__(self) -> dict[str, Any]:
        """Empty, as the state of the searcher below is."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Report that an actor has been found for a trial."""
        self.messages.put(Began(*_work_and_key(trial)))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Report the outcome that a trial returned."""
        outcome = Outcome.from_json(str(trial.last_result["outcome"]))
        self.messages.put(Ended(*_work_and_key(trial), outcome))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Report why a trial's process is gone."""
        # The copy beside the results, which get_error() reads, is made at a first report only.
        text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
        self.messages.put(Ended(*_work_and_key(trial), _death(text)))


def _work_and_key(trial: Any) -> tuple[Work, str]:
    """What a Tune trial does, and for which cell."""
    return trial.config["work"], Trial.from_json(trial.config["trial"]).key


def _death(text: str) -> Death:
    """Why a trial's process died; only of want of memory Ray knows more than that it is gone."""
    killed = memory_kill(text)
    if killed:
        return Death(Failure.out_of_memory, killed)
    return Death(Failure.node_lost, "the process of the trial died")


class _Feeder(Searcher):
    """Tune's search algorithm, which searches nothing: it hands over what the launch submits."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: SimpleQueue[dict[str, Any] | None] = SimpleQueue()  # None: no more will come
        self._at_work: set[str] = set()
        self._is_closed = False
        self._awaits_answer = True

    def __getstate__(self) -> dict[str, Any]:
        """Empty: Tune pickles its searcher, queues cannot be pickled, and no launch reads that."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial; nothing for now, or FINISHED."""
        if self._is_closed:
            return Searcher.FINISHED
        # Tune sleeps for a second when it gets nothing while nothing runs.
        seconds = _ANSWER_SECONDS if self._awaits_answer or not self._at_work else 0.0
        self._awaits_answer = False
        try:
            config = self.waiting.get(timeout=seconds) if seconds else self.waiting.get_nowait()
        except Empty:
            return None
        if config is None:
            self._is_closed = True
            return Searcher.FINISHED
        self._at_work.add(trial_id)
        return config

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Expect the launch to answer with another trial."""
        self._at_work.discard(trial_id)
        self._awaits_answer = True

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: which cells are done is known from the results, not from Tune."""
        with open(checkpoint_path, "w") as file:  # noqa: PTH123 - Tune's signature, a str
            json.dump({}, file)

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, since `save` keeps no state."""
