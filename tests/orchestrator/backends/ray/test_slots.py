"""How many cells a Ray holds, and the cores of each; the clusters are plain data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.backends.base import LaunchContext
from orchestrator.backends.ray.cluster import Cluster
from orchestrator.backends.ray.launch import RayPool
from orchestrator.options import parse
from orchestrator.trial import Trial
from trainer.config.compose import compose
from trainer.config.fingerprint import config_json

RECIPES = ("voc", "cityscapes")
CONFIGS = {name: compose([f"recipe={name}", "model=resnet50"]) for name in RECIPES}


@dataclass(frozen=True)
class Joined:
    """The part of a running Tune that the pool asks for its resources."""

    cluster: Cluster


def pool_on(cpus: float, gpus: float, *words: str) -> tuple[RayPool, list[Trial]]:
    """The pool for a cell of VOC and one of Cityscapes, and both as it would start them."""
    options, _ = parse(words)
    trials = [
        Trial(
            name,
            config_json(config),
            "f",
            "/root",
            "ray",
            "",
            cpus_per_rank=options.cpus_for(config, "cpu"),
            cpus_beside_gpu=options.cpus_for(config, "cuda"),
        )
        for name, config in CONFIGS.items()
    ]
    context = LaunchContext(options, Path("/grid"), trials, cast(Any, None), cast(Any, None))
    tune = Joined(Cluster(cpus, gpus, Path("/scratch"), is_own=False))
    pool = RayPool(context, cast(Any, tune))
    return pool, [pool.prepare(trial) for trial in trials]


@pytest.mark.parametrize(
    ("cpus", "gpus", "words", "cores", "slots"),
    [
        (2, 0, [], [1, 1], 2),
        (64, 8, [], [2, 3], 8),
        (64, 8, ["ranks=4"], [2, 3], 2),
        (64, 8, ["cpus_per_rank=8"], [8, 8], 8),
        (64, 8, ["gpus_per_rank=0"], [1, 1], 64),
        (10, 4, [], [2, 2], 4),  # a third core each would leave one card without a cell
        (4, 4, [], [1, 1], 4),
        (16, 2, ["gpus_per_rank=0.25"], [2, 2], 8),
        (1, 1, [], [1, 1], 1),
    ],
)
def test_cores_feed_the_cards_and_leave_none_of_them_idle(
    cpus: float, gpus: float, words: list[str], cores: list[int], slots: int
) -> None:
    pool, trials = pool_on(cpus, gpus, *words)

    assert [trial.cpus_per_rank for trial in trials] == cores
    assert pool.slots == slots


def test_a_number_of_cores_that_the_cluster_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="1 ranks with 9 CPUs and 1 GPUs each; the cluster has 8"):
        pool_on(8, 1, "cpus_per_rank=9")
