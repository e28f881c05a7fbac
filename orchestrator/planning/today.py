"""What a result must have to be of today: configuration, first weights, images and masks, lists."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from datasets.config import DataConfig
from datasets.identity import DataIdentity, KnownFiles, identity_of
from datasets.location import locate
from orchestrator.results.counted import Today
from orchestrator.results.store import Row
from trainer.config.fingerprint import fingerprints
from trainer.config.first_weights import first_weights
from trainer.config.schema import Init, TrainConfig


@dataclass
class TodaysData:
    """The data and first weights on this machine, looked at when asked for, once per setting."""

    _known: dict[DataConfig, DataIdentity | None] = field(default_factory=dict)
    _files: dict[DataConfig, KnownFiles | None] = field(default_factory=dict)
    _weights: dict[tuple[str, Init, str], str] = field(default_factory=dict)

    def of(self, config: DataConfig) -> DataIdentity | None:
        """Which files these are now; None where they are not on this machine."""
        default = DataConfig()
        read = DataConfig(
            dataset=config.dataset,
            root=config.root,
            cache=config.cache,
            cache_gib=config.cache_gib,
            split=config.split,
            drawn=config.drawn,
        )
        if read not in self._known:
            self._known[read] = None
            files = self._files_of(replace(read, split=default.split))
            if files is not None:
                with suppress(ValueError, OSError):
                    self._known[read] = identity_of(config, files)
        return self._known[read]

    def _files_of(self, place: DataConfig) -> KnownFiles | None:
        """The files of a data set, whatever the split; a silent store is asked once for all."""
        if place not in self._files:
            self._files[place] = None
            with suppress(ValueError, OSError):
                self._files[place] = KnownFiles(locate(place))
        return self._files[place]

    def weights(self, config: TrainConfig) -> str:
        """sha256 of the file of first weights, see `first_weights`."""
        kind = config.model.backbone, config.model.init, config.run.weights
        if kind not in self._weights:
            self._weights[kind] = first_weights(config)
        return self._weights[kind]

    def changes(self, config: DataConfig, data: str, split: str) -> list[str]:
        """How today's data differ from those of a row or a checkpoint; empty where they do not.

        Args:
            config: of the data.
            data: the fingerprint then; empty where it is not known.
            split: the checksum of the lists then; empty where it is not known.
        """
        if not data and not split:
            return []
        now = self.of(config)
        return now.changes_since(data, split) if now is not None else []


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
    known: dict[int, DataIdentity | None] = {}  # by id: the cells of a group share one object
    today = {}
    for key, config in (*configs.items(), *old.items()):
        if key in seeds and id(config.data) not in known:
            known[id(config.data)] = data.of(config.data)
        now = known[id(config.data)] if key in seeds else None
        own = (now.fingerprint, now.split.checksum) if now is not None else ("", "")
        weights = data.weights(config) if key in seeds else ""
        today[key] = Today(prints[key], *own, weights, is_planned=key in configs)
    return today
