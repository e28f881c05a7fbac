"""The same number of functions that do nothing, by Ray Tune or submitit alone.

    python -m benchmarks.dispatch.bare ray|slurm NUM_CALLS FOLDER

Each call leaves an empty file in FOLDER/ended.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def by_ray(num_calls: int, folder: Path) -> None:
    """A grid search of Ray Tune on two cores of its own, with actors that are used again."""
    import ray
    from ray import tune

    def leave_file(config: dict[str, Any]) -> None:
        (folder / "ended" / str(config["call"])).touch()

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    tune.Tuner(
        tune.with_resources(leave_file, {"cpu": 1}),
        param_space={"call": tune.grid_search(list(range(num_calls)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()


def by_submitit(num_calls: int, folder: Path) -> None:
    """Arrays of submitit, and a wait for every result."""
    import submitit

    executor = submitit.AutoExecutor(folder / "jobs", cluster="slurm")
    executor.update_parameters(
        timeout_min=30, cpus_per_task=1, mem_gb=0.5, slurm_array_parallelism=num_calls
    )
    numbers = list(range(num_calls))
    most = 1000  # jobs of one array, as the site of the tests allows
    jobs = []
    for first in range(0, num_calls, most):
        chunk = numbers[first : first + most]
        jobs += executor.map_array(_leave_file, [folder / "ended"] * len(chunk), chunk)
    for job in jobs:
        job.result()


def _leave_file(folder: Path, call: int) -> None:
    (folder / str(call)).touch()


WAYS: dict[str, Callable[[int, Path], None]] = {"ray": by_ray, "slurm": by_submitit}

if __name__ == "__main__":
    WAYS[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
