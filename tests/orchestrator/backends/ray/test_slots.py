"""How many cells a Ray holds, the cores of each, and the room on disk, all as plain data."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.backends.base import LaunchContext
from orchestrator.backends.ray.cluster import Cluster, ClusterUnreachable, check_room
from orchestrator.backends.ray.launch import RayPool
from orchestrator.options import parse
from orchestrator.trial import Trial
from trainer.config.compose import compose
from trainer.config.fingerprint import config_json

RECIPES = ("voc", "cityscapes")
CONFIGS = {name: compose([f"recipe={name}", "model=resnet50"]) for name in RECIPES}


@dataclass
class Joined:
    """A Tune on which nothing runs; its cluster is plain data."""

    cluster: Cluster

    def poll(self) -> None:
        return

    def begun(self) -> list[str]:
        return []

    def returned(self) -> list[str]:
        return []

    def ended(self, work: str) -> list[tuple[str, object]]:
        return []


@dataclass
class Lines:
    """A screen that keeps its lines."""

    lines: list[str] = field(default_factory=list)

    def message(self, text: str, style: str = "") -> None:
        self.lines.append(text)


def pool_on(
    cpus: float, gpus: float, *words: str, screen: Lines | None = None
) -> tuple[RayPool, list[Trial]]:
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
    context = LaunchContext(options, Path("/grid"), trials, cast(Any, None), cast(Any, screen))
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


def test_slots_follow_the_nodes_that_are_left_and_those_that_are_added() -> None:
    screen = Lines()
    pool, _ = pool_on(8, 0, screen=screen)
    joined = cast(Joined, pool._tune)
    seen = []

    for cpus in (8, 2, 0, 4):
        joined.cluster = replace(joined.cluster, cpus=cpus)
        assert list(pool.poll()) == []
        seen.append(pool.slots)

    assert seen == [8, 2, 0, 4]
    assert screen.lines == [
        "Ray has 2 CPUs and 0 GPUs now: 2 cells at once",
        "Ray has 0 CPUs and 0 GPUs now: cells wait until it has more",
        "Ray has 4 CPUs and 0 GPUs now: 4 cells at once",
    ]


def test_a_full_folder_for_temporary_files_is_named_with_what_to_do() -> None:
    check_room(Path("/tmp"), 2**30)

    with pytest.raises(ClusterUnreachable, match=r"/var/x, has 2 MiB left .* with TMPDIR=DIR"):
        check_room(Path("/var/x"), 2 * 2**20)
