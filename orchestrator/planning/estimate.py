"""Estimates how long cells take: a model of their work, scaled by seconds that were measured.

Those of done cells under the same root come first, then what the grid's file says of all its cells.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from heapq import heapreplace
from statistics import median

from datasets.splits.lists import split_sizes
from orchestrator.results.store import Row
from trainer.config.schema import ModelConfig, TrainConfig
from trainer.schedule import Schedule


def work(config: TrainConfig) -> float:
    """Relative length of a run: steps, images, pixels and layers; the unit has no meaning."""
    labelled, unlabelled, _ = split_sizes(config.data)
    schedule = Schedule.of(config, num_labelled=labelled, num_unlabelled=unlabelled)
    layers = config.model.facts.layers or _layers(config.model)
    pixels = config.batch * config.data.crop**2
    return schedule.total_steps * pixels * layers * config.method.facts.passes


def _layers(model: ModelConfig) -> float:
    """Cost of a ResNet per pixel."""
    blocks, finer = model.blocks, 16 // model.stride  # the last two stages at 8
    return (sum(blocks[:2]) + sum(blocks[2:]) * finer**2) * model.width**2


def seconds_by_key(
    configs: Mapping[str, TrainConfig],
    fingerprints: Mapping[str, str],
    rows: Iterable[Row],
    *,
    measured: Mapping[str, float],
) -> dict[str, float | None]:
    """Estimated seconds of each cell; None where no comparable cell is done or measured.

    Comparable is a done cell of the same recipe and backbone, else of the same recipe.

    Args:
        configs: today's configuration by key.
        fingerprints: of these, by key.
        rows: all published rows.
        measured: seconds by key, for cells without a comparable one; see `shares`.
    """
    known = _Known()
    rates: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row.status != "done" or not row.seconds or row.fingerprint != fingerprints.get(row.key):
            continue
        try:
            rate = row.seconds / known.work(configs[row.key])
        except ValueError:  # its lists are not on this machine
            continue
        for kind in ((row.recipe, row.backbone), (row.recipe, "")):
            rates.setdefault(kind, []).append(rate)
    seconds: dict[str, float | None] = {}
    for key, config in configs.items():
        own = rates.get((config.recipe, config.model.backbone)) or rates.get((config.recipe, ""))
        seconds[key] = known.scaled(config, own) if own else measured.get(key)
    return seconds


def shares(configs: Mapping[str, TrainConfig], seconds: float) -> dict[str, float]:
    """A time that was measured of all cells together, divided among them by their work."""
    parts = {key: work(config) for key, config in configs.items()}
    total = sum(parts.values())
    return {key: seconds * part / total for key, part in parts.items()}


def relative_work(configs: Mapping[str, TrainConfig]) -> dict[str, float]:
    """Work of each cell by key; 0 for a split that is too small to run at all."""
    known, parts = _Known(), dict.fromkeys(configs, 0.0)
    for key, config in configs.items():
        with suppress(ValueError):
            parts[key] = known.work(config)
    return parts


def seconds_together(seconds: Iterable[float], slots: int) -> float:
    """How long cells take, of which `slots` run at once, those that take longest first."""
    ends = [0.0] * slots
    for length in sorted(seconds, reverse=True):
        heapreplace(ends, ends[0] + length)  # the slot that is free first
    return max(ends)


class _Known:
    """A cache of work and median rates: the cells of a group share all that these depend on.

    Its keys are `id`s, which stay valid because the caller holds the objects for as long.
    """

    def __init__(self) -> None:
        self._work: dict[tuple[int, ...], float] = {}
        self._rates: dict[int, float] = {}

    def work(self, config: TrainConfig) -> float:
        """See `work`."""
        parts = tuple(map(id, (config.data, config.model, config.method, config.optim)))
        if parts not in self._work:
            self._work[parts] = work(config)
        return self._work[parts]

    def scaled(self, config: TrainConfig, rates: list[float]) -> float | None:
        """Seconds at the median rate; None for a split that is too small to run at all."""
        if id(rates) not in self._rates:
            self._rates[id(rates)] = median(rates)
        try:
            return self.work(config) * self._rates[id(rates)]
        except ValueError:
            return None
