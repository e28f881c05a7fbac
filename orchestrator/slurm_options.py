"""How cells become Slurm jobs: the words `slurm.KEY=VALUE`, or a file of them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class SlurmOptions:
    """Where jobs go and what surrounds them; nothing here can move a number."""

    partition: str = ""  # empty: the site's default
    account: str = ""  # that pays; empty: the site's default
    qos: str = ""  # quality of service; empty: the site's default
    minutes: int = 240  # limit of one job; a longer run goes on in the next
    memory_gb: float = 0.0  # per node; 0: the site's default; doubled after out-of-memory
    nodes: int = 1  # that share the ranks of one cell
    constraint: str = ""  # features of nodes, such as a100
    setup: tuple[str, ...] = ()  # shell lines before Python starts
    python: str = ""  # what starts Python, such as: apptainer exec --nv image.sif python
    extra: tuple[str, ...] = ()  # further #SBATCH parameters, each key=value
    signal_seconds: int = 120  # warning before the time limit
    at_once: int = 0  # jobs of one array that run together; 0: all
    max_jobs: int = 0  # in the queue; 0: as many as the site allows
    poll_seconds: float = 60.0  # longest pause between two requests to Slurm
    controller: str = "tune"  # Ray Tune; plain: without Ray, for small login nodes


def read_option(options: SlurmOptions, key: str, value: str) -> SlurmOptions:
    """The options with one word `slurm.KEY=VALUE` or `slurm=FILE` added.

    Raises:
        ValueError: an unknown key, or a value that does not fit.
    """
    name = key.partition(".")[2]
    if not name:
        return _from_file(options, Path(value))
    if name in ("setup", "extra"):
        return _with(options, name, (*getattr(options, name), value), key)
    return _with(options, name, yaml.safe_load(value), key)


def _from_file(options: SlurmOptions, path: Path) -> SlurmOptions:
    """Every entry of a site's file."""
    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"slurm={path}: {error.strerror}; give a YAML file.") from None
    except yaml.YAMLError as error:
        raise ValueError(f"slurm={path} is no YAML: {error}") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"slurm={path} holds no `key: value` lines.")
    for name, value in found.items():
        wanted = tuple(_words(value)) if name in ("setup", "extra") else value
        options = _with(options, str(name), wanted, f"{path}: {name}")
    return options


def _words(value: Any) -> list[str]:
    """A list, a mapping or one line, as lines."""
    if isinstance(value, Mapping):
        return [f"{key}={item}" for key, item in value.items()]
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _with(options: SlurmOptions, name: str, value: Any, said: str) -> SlurmOptions:
    """One field replaced, if the value is of its kind."""
    kinds = {item.name: type(item.default) for item in fields(SlurmOptions)}
    if name not in kinds:
        raise ValueError(f"Unknown setting {said}; known: {', '.join(kinds)}.")
    kind = kinds[name]
    if kind is str:
        value = "" if value is None else str(value)
    if kind is float and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{said}={value!r} is no {kind.__name__}.")
    if isinstance(value, int | float) and value < 0:
        raise ValueError(f"{said}={value} is below 0.")
    changed: dict[str, Any] = {name: value}
    return replace(options, **changed)
