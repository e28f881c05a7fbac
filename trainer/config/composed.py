"""Configurations that earlier processes composed, one small file each in the user's cache.

Hydra takes 0.07 s of CPU for each kind of cell and as long to be imported, and every command needs
all kinds of a grid. A file is named by the sha256 of all that its composition depends on: the
words, the presets, the schema and its code, the versions of Hydra and OmegaConf.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import fields
from enum import Enum
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datasets import config as data_config
from datasets.config import DataConfig
from datasets.files import atomic_write
from datasets.location import cache_root
from trainer.config.fingerprint import config_json
from trainer.config.help import dataclass_in
from trainer.config.schema import TrainConfig

MOST_FILES = 512  # of 3 kB; the oldest go first


def kept(words: tuple[str, ...], folder: Path, files: tuple[object, ...]) -> TrainConfig | None:
    """The configuration that was composed of the same words and files; None where there is none.

    Args:
        words: in Hydra's grammar, without interpolations.
        folder: of the presets.
        files: their state; contents are read again only where it has changed.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        checksum, text = _path(words, folder, files).read_text().split("\n")
        if checksum == _sha256(text):
            return _config_of(text)
    return None


def keep(
    words: tuple[str, ...], folder: Path, files: tuple[object, ...], config: TrainConfig
) -> None:
    """Keep what was composed for later processes, where the cache can be written.

    A configuration that would not come back bit for bit is not kept.
    """
    with suppress(OSError, ValueError):
        text = config_json(config)
        again = _config_of(text)
        if again != config or config_json(again) != text:
            return
        path = _path(words, folder, files)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, f"{_sha256(text)}\n{text}")
        files_by_age = sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        for old in files_by_age[:-MOST_FILES]:
            old.unlink(missing_ok=True)


def _path(words: tuple[str, ...], folder: Path, files: tuple[object, ...]) -> Path:
    name = _sha256(json.dumps([_sources(folder, files), words]))
    return cache_root(DataConfig()) / "composed" / f"{name}.json"


@lru_cache(maxsize=8)
def _sources(folder: Path, files: tuple[object, ...]) -> str:
    """Sha256 of presets, schema, code and versions.

    Of contents and not of times: containers and archives give all files the same time.
    """
    packages = {"hydra": "__init__.py", "omegaconf": "version.py"}  # files that say the version
    specs = [(find_spec(name), file) for name, file in packages.items()]
    code = [Path(spec.origin).with_name(file) for spec, file in specs if spec and spec.origin]
    code += [Path(data_config.__file__), *sorted(Path(__file__).parent.glob("*.py"))]
    presets = sorted(folder.rglob("*.yaml"))
    names = [str(path.relative_to(folder)) for path in presets] + [path.name for path in code]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (*presets, *code)]
    return _sha256(json.dumps([names, hashes]))


def _config_of(text: str) -> TrainConfig:
    """The configuration that `config_json` wrote for today's schema."""
    config = _built(TrainConfig, json.loads(text))
    assert isinstance(config, TrainConfig)
    return config


def _built(kind: Any, plain: Any) -> Any:
    """A value of a field's type, from its plain JSON data."""
    inner = dataclass_in(kind)
    if inner is not None and plain is not None:
        return inner(**{item.name: _built(item.type, plain[item.name]) for item in fields(inner)})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(plain)
    return tuple(plain) if isinstance(plain, list) else plain


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
