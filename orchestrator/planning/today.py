"""What a result must have to be of today: configuration, images and masks, lists."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from datasets.config import DataConfig
from orchestrator.results.counted import Today, is_same
from orchestrator.results.store import Row
from trainer.config.fingerprint import fingerprints
from trainer.config.schema import TrainConfig


@dataclass
class TodaysData:
    """The data on this machine, looked at when it is asked for and then once per configuration."""

    _known: dict[DataConfig, tuple[str, str]] = field(default_factory=dict)

    def of(self, config: DataConfig) -> tuple[str, str]:
        """Fingerprint of the data and checksum of the lists; empty where they are not here."""
        if config not in self._known:
            self._known[config] = (_fingerprint(config), "")
        return self._known[config]

    def changes(self, config: DataConfig, data: str, split: str) -> list[str]:
        """How today's data differ from those of a row or a checkpoint; empty where they do not.

        Args:
            config: of the data.
            data: the fingerprint then; empty where it is not known.
            split: the checksum of the lists then; empty where it is not known.
        """
        if not data and not split:
            return []
        now, lists = self.of(config)
        changed = []
        if not is_same(data, now):
            changed.append(f"data.root: other images ({data[:8]} -> {now[:8]})")
        if not is_same(split, lists):
            changed.append(f"data.split: other lists ({split[:8]} -> {lists[:8]})")
        return changed


def todays(
    configs: Mapping[str, TrainConfig], rows: Iterable[Row], data: TodaysData
) -> dict[str, Today]:
    """What a row of today has, for each cell and for the seeds of it that only rows have.

    Args:
        configs: of the grid's cells, by key.
        rows: all there are; data is looked at for cells that have some.
        data: on this machine.
    """
    by_group = {key.rpartition(".s")[0]: config for key, config in configs.items()}
    seeds = {row.key: row.seed for row in rows if row.group in by_group}
    old = {
        key: replace(by_group[key.rpartition(".s")[0]], seed=seed)
        for key, seed in seeds.items()
        if key not in configs
    }
    prints = fingerprints({**configs, **old})
    return {
        key: Today(
            prints[key],
            *(data.of(config.data) if key in seeds else ("", "")),
            is_planned=key in configs,
        )
        for key, config in (*configs.items(), *old.items())
    }


def _fingerprint(config: DataConfig) -> str:
    if config.dataset != "folder":
        return ""
    from datasets.dataset import fingerprint_of  # loads Pillow

    try:
        return fingerprint_of(config)
    except (ValueError, OSError):
        return ""
