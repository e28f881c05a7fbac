"""Ray Tune as the controller of a launch: one Tune trial for every cell that runs.

Tune's own loop runs in a thread beside the loop of the launch. Two kinds of queue connect them: one
brings the trials that Tune may start, the others take the outcomes back.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal

from ray import tune
from ray.tune.search import Searcher

from datasets.files import atomic_write
from orchestrator.backends.ray.cluster import Cluster
from orchestrator.options import LaunchOptions
from orchestrator.trial import Outcome, Trial

# What a Tune trial does: run the cell on Ray, or wait for the end of its job elsewhere.
Work = Literal["run", "watch"]

_LOOK_SECONDS = 0.5  # between two looks for the end of a job
_LEAVE = "leave"  # name of the file that ends the wait of every watching trial
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

    def ended(self, work: Work) -> Iterator[tuple[str, Outcome | None]]:
        """Keys of the trials that ended since the last call; None where the process died.

        Raises:
            Exception: what broke Tune.
        """
        if self._error is not None:
            raise self._error
        ended = self._feeder.ended[work]
        while not ended.empty():
            yield ended.get()

    def close(self) -> None:
        """Let Tune end when its trials have ended."""
        self._feeder.waiting.put(None)
        if self._thread is not None:
            self._thread.join()

    def _fit(self) -> None:
        def resources(config: dict[str, Any]) -> Any:
            wanted = {"CPU": config["cpus"]} if config["inside"] else _WAITING
            return tune.PlacementGroupFactory([wanted])

        tuner = tune.Tuner(
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
            ),
        )
        try:
            tuner.fit()
        except BaseException as error:  # noqa: BLE001 - raised by the loop of the launch
            self._error = error


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
        outcome = _wait_for_outcome(trial)
    else:
        outcome = run_on_ranks(trial, in_this_process=config["inside"])
    tune.report({"outcome": outcome.to_json()})


def _wait_for_outcome(trial: Trial) -> Outcome:
    """Wait until the job of a cell has ended, or the launch stops watching."""
    folder = Path(trial.scratch)
    path = _outcome_path(folder, trial.key)
    while not path.exists():
        if (folder / _LEAVE).exists():
            return Outcome("stopped", error_text="its job goes on in Slurm")
        time.sleep(_LOOK_SECONDS)
    outcome = Outcome.from_json(path.read_text())
    path.unlink()  # a later attempt of the cell waits for a file of its own
    return outcome


def write_outcome(folder: Path, key: str, outcome: Outcome) -> None:
    """Let the Tune trial that waits for a cell return."""
    atomic_write(_outcome_path(folder, key), outcome.to_json())


def stop_waiting(folder: Path) -> None:
    """Let every waiting Tune trial return; the jobs go on."""
    (folder / _LEAVE).touch()


def _outcome_path(folder: Path, key: str) -> Path:
    """Where the outcome of a cell's job is written."""
    return folder / f"outcome-{key}.json"


class _Feeder(Searcher):
    """Tune's search algorithm, which searches nothing: it hands over what the launch submits."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: SimpleQueue[dict[str, Any] | None] = SimpleQueue()  # None: no more will come
        self.ended: dict[Work, SimpleQueue[tuple[str, Outcome | None]]] = {
            "run": SimpleQueue(),
            "watch": SimpleQueue(),
        }
        self._at_work: dict[str, dict[str, Any]] = {}
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
        self._at_work[trial_id] = config
        return config

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the launch how a trial ended."""
        config = self._at_work.pop(trial_id, None)
        if config is None:
            return
        text = (result or {}).get("outcome")
        outcome = None if error or text is None else Outcome.from_json(str(text))
        self._awaits_answer = True
        self.ended[config["work"]].put((Trial.from_json(config["trial"]).key, outcome))

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: which cells are done is known from the results, not from Tune."""
        with open(checkpoint_path, "w") as file:  # noqa: PTH123 - Tune's signature, a str
            json.dump({}, file)

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, since `save` keeps no state."""
