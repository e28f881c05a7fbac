"""The key=value words of a command: options of the launch, and settings of the training."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from datasets.cli import aligned
from datasets.config import option
from datasets.known.yaml_values import yaml_problem
from datasets.wording import did_you_mean, did_you_mean_path
from trainer.config.compose import GROUPS, field_names
from trainer.config.help import help_of_fields
from trainer.config.schema import TrainConfig


def _is_gpu_share(value: float) -> bool:
    """-1, a part of one GPU, or whole GPUs."""
    return value == -1.0 or 0.0 <= value <= 1.0 or (value > 1.0 and value.is_integer())


def _is_count_or_auto(value: str) -> bool:
    """A whole number above zero, or the word auto."""
    return value == "auto" or (value.isdecimal() and int(value) > 0)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_in(text: str) -> float | None:
    """The seconds of a time such as 90s, 10m or 2h; None for another text."""
    match = _DURATION.fullmatch(text)
    return float(match[1]) * _UNITS[match[2]] if match else None


def _is_duration(value: str) -> bool:
    """Nothing, or a time such as 2h."""
    return not value or seconds_in(value) is not None


def _is_moment(value: str) -> bool:
    """Nothing, or a date with a time."""
    with suppress(ValueError):
        return not value or bool(datetime.fromisoformat(value))
    return False


def _is_minutes(value: float) -> bool:
    """Finite, and not below zero."""
    return 0.0 <= value < math.inf


@dataclass(frozen=True)
class SlurmOptions:
    """Where Slurm jobs run and what they ask for; nothing here can change a result."""

    partition: str = option("", "empty: the site's default")
    account: str = option("", "that pays; empty: the site's default")
    qos: str = option("", "quality of service; empty: the site's default")
    minutes: int = option(240, "limit of one job; a longer run goes on in the next", least=0)
    memory_gb: float = option(
        0.0, "per node; 0: the site's default; doubled after out-of-memory", least=0
    )
    nodes: int = option(1, "that share the ranks of one cell", least=0)
    constraint: str = option("", "features of nodes, such as a100")
    setup: tuple[str, ...] = option((), "shell lines before Python starts")
    python: str = option("", "what starts Python, such as: apptainer exec --nv image.sif python")
    extra: tuple[str, ...] = option(
        (), "further #SBATCH parameters, each key=value, such as gres=gpu:a100:1"
    )
    signal_seconds: int = option(120, "warning before the time limit", least=0)
    at_once: int = option(0, "jobs of one array that run together; 0: all", least=0)
    max_jobs: int = option(0, "in the queue; 0: as many as the site allows", least=0)
    poll_seconds: float = option(60.0, "longest pause between two requests to Slurm", least=0)
    controller: str = option(
        "tune", "Ray Tune; plain: without Ray, for small login nodes", choices=("tune", "plain")
    )


Options = TypeVar("Options", "LaunchOptions", SlurmOptions)

# The module of each back end (`backends/base.py` says what it offers), by the word of `backend=`.
# Names and no imports, since most verbs of the command line must answer without Ray.
BACKENDS = {
    "ray": "orchestrator.backends.ray.launch",
    "inline": "orchestrator.backends.inline",
    "slurm": "orchestrator.backends.slurm.launch",
    "auto": "orchestrator.backends.auto",
}


@dataclass(frozen=True)
class LaunchOptions:
    """How and where a grid runs; nothing here can change a result."""

    root: str = option("outputs", "of runs and results: a folder, or s3://bucket/prefix")
    scratch: str = option(
        "", "with root=s3://: folder for runs at work; empty: ~/.cache/ipixmatch/scratch"
    )
    backend: str = option(
        "ray",
        "ray: Ray Tune and Train; slurm: one job a cell; auto: both",
        choices=BACKENDS,
    )
    ray_address: str = option("", "empty: an own local Ray; auto or host:port joins a cluster")
    ranks: int = option(1, "processes that train one cell together", least=1)
    cpus_per_rank: str = option(
        "auto",
        "cores that Ray or Slurm reserves; auto: for run.threads and the loader's workers",
        holds=_is_count_or_auto,
        wanted="give a whole number above 0, or auto",
    )
    gpus_per_rank: float = option(
        -1.0,
        "-1: one if there is a GPU, else none; 0.5: two cells share one, not on published data",
        holds=_is_gpu_share,
        wanted="give a whole number, a part of one GPU, or -1",
    )
    gpu_memory_gb: float = option(
        0.0, "GiB of one card, for `plan` and refusals; 0: as nvidia-smi, Ray or Slurm say", least=0
    )
    concurrency: int = option(0, "cells at once; 0: as many as the resources allow", least=0)
    to_ray: str = option("*", "backend=auto: cells that may go to Ray, as a glob over keys")
    to_slurm: str = option(
        "*", "and those that may go to Slurm; where both fit, the first free slot"
    )
    only: str = option("*", "glob over cell keys")
    rerun: str = option("none", "also run cells that are done", choices=("none", "drifted", "all"))
    budget: str = option(
        "",
        "such as 300h: hours of GPUs, or of cores without GPUs, for the whole grid; no cell starts "
        "that would pass it, and running ones stop there",
        holds=_is_duration,
        wanted="give a time such as 300h, 90m or 30s",
    )
    until: str = option(
        "",
        "such as 2026-12-01T08:00: the same for a moment, in local time",
        holds=_is_moment,
        wanted="give a moment such as 2026-12-01T08:00",
    )
    retries: int = option(
        -1, "per cell and class of failure; -1: each class has its own number", least=-1
    )
    hang_minutes: float = option(
        10.0,
        "without a step before a cell is ended as hanging; 0: never",
        holds=_is_minutes,
        wanted="give minutes, or 0 for never",
    )
    workers: str = option(
        "auto", "group: own processes even for one CPU rank", choices=("auto", "group")
    )
    seeds: str = option(
        "grid",
        "auto: until every comparison is settled, by a design stated first (docs/seeds.md)",
        choices=("grid", "auto"),
    )
    max_seeds: int = option(
        0,
        "of each cell, with seeds=auto; 0: as many as were stated, and 8 for a new design",
        least=0,
    )
    on_event: str = option(
        "", "command that gets events such as finished, first_failure as JSON; see docs/json.md"
    )
    epoch: str = option("best", "whose mIoU the tables print", choices=("best", "last"))
    slurm: SlurmOptions = field(default_factory=SlurmOptions)

    @property
    def fixed_cpus(self) -> int | None:
        """`cpus_per_rank` as a number; None for auto."""
        return None if self.cpus_per_rank == "auto" else int(self.cpus_per_rank)

    def cpus_for(self, config: TrainConfig, device_type: str) -> int:
        """Cores to reserve for a rank that trains this configuration on a device of this type."""
        return self.fixed_cpus or config.run.threads + config.loader_workers(device_type)

    @property
    def limits(self) -> str:
        """`budget` and `until` as they were typed; empty without both."""
        pairs = {"budget": self.budget, "until": self.until}
        return " ".join(f"{name}={value}" for name, value in pairs.items() if value)

    @property
    def printed_epoch(self) -> Literal["best", "last"]:
        """`epoch` as the tables take it; OmegaConf knows no Literal."""
        return "last" if self.epoch == "last" else "best"


_VALUED = {"--explain": "table3/321/ipixmatch", "--check": "paper.tex"}
_MISSING = "???"  # OmegaConf's sign for no value, which settings of the training refuse, too
_LISTS = ("setup", "extra")  # of Slurm: each word adds a line, taken as it is


def joined(words: Sequence[str]) -> list[str]:
    """The words, with ``--explain CELL`` and ``--check FILE`` as one key=value each."""
    pairs: list[str] = []
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag in _VALUED:
            value = value if equals else next(rest, "")
            if not value:
                raise ValueError(f"{flag} needs a value, such as {flag} {_VALUED[flag]}.")
            pairs.append(f"{flag.removeprefix('--')}={value}")
        else:
            pairs.append(word)
    return pairs


def parse(words: Sequence[str]) -> tuple[LaunchOptions, tuple[str, ...]]:
    """Options of the launch and overrides of the training.

    Raises:
        ValueError: a word that is neither, or a value that does not fit.
    """
    options = LaunchOptions()
    overrides = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"{word!r} is no setting; write key=value, such as optim.epochs=10.")
        if key == "slurm":
            options = replace(options, slurm=_with_file(options.slurm, Path(value)))
        elif key.startswith("slurm."):
            slurm = _with(options.slurm, key.removeprefix("slurm."), value, said=key)
            options = replace(options, slurm=slurm)
        elif key in _names(LaunchOptions):
            if not value and not _has_choices(key):  # those are said by the refusal itself
                raise ValueError(f"{key}= needs a value.")
            options = _with(options, key, value, said=key)
        elif key.lstrip("+~") in (*GROUPS, *field_names()):
            overrides.append(word)
        else:
            raise ValueError(_unknown(key))
    return options, tuple(overrides)


def changed_options(options: LaunchOptions) -> dict[str, object]:
    """The options that are not at their defaults, by the names that people type."""
    changed: dict[str, object] = {}
    for part, usual, prefix in (
        (options, LaunchOptions(), ""),
        (options.slurm, SlurmOptions(), "slurm."),
    ):
        for item in fields(part):
            value = getattr(part, item.name)
            if item.name != "slurm" and value != getattr(usual, item.name):
                changed[prefix + item.name] = value
    return changed


def describe(names: Collection[str] | None = None) -> list[str]:
    """Lines of help: options with their defaults and what they mean.

    Args:
        names: of the options; None for all, with those of Slurm.
    """
    shown = [item for item in help_of_fields(LaunchOptions) if names is None or item.name in names]
    lines = [line for item in shown for line in item.lines()]
    if names is None:
        first = next(number for number, line in enumerate(lines) if line.startswith("  slurm."))
        lines[first:first] = aligned("slurm=FILE", "a YAML file of the following, without `slurm.`")
    return lines


def _with_file(options: SlurmOptions, path: Path) -> SlurmOptions:
    """The options with every entry of a site's file."""
    try:
        # Every value a text: an account 0123 is no octal number, and a partition `no` no bool.
        entries = yaml.load(path.read_text(), yaml.BaseLoader)
    except OSError as error:
        near = did_you_mean_path(path) if not path.exists() else ""
        raise ValueError(f"slurm={path}: {error.strerror}; give a YAML file.{near}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"slurm={path} is no YAML: {yaml_problem(error)}.") from None
    if not isinstance(entries, Mapping):
        raise ValueError(f"slurm={path} holds no `key: value` lines.")
    for name, value in entries.items():
        if name in _LISTS:
            options = _changed(options, name, tuple(_lines(value)))
        else:
            if not isinstance(value, str):
                raise ValueError(f"{path}: {name} takes one value, found {value!r}.")
            text = "" if value in ("null", "~") else value
            options = _with(options, str(name), text, said=f"{path}: {name}")
    return options


def _lines(value: Any) -> list[str]:
    """A list, a mapping or one line, as lines."""
    if isinstance(value, Mapping):
        return [f"{key}={item}" for key, item in value.items()]
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _with(options: Options, name: str, value: str, *, said: str) -> Options:
    """The options with one field changed, if the value is of its kind and within its bounds."""
    known = {item.name: item for item in fields(options)}
    if name not in known:
        near = did_you_mean(name, known)
        raise ValueError(f"Unknown setting {said}; known: {', '.join(known)}.{near}")
    if name in _LISTS:
        return _changed(options, name, (*getattr(options, name), value))
    item: Any = known[name]
    if value == _MISSING:
        raise ValueError(f"{said}={value} is no value.")
    try:
        number = item.type(value)
    except ValueError:
        kind = "whole number" if item.type is int else "number"
        raise ValueError(f"{said}={value} is no {kind}.") from None
    facts = item.metadata
    if "choices" in facts and value not in facts["choices"]:
        raise ValueError(f"{said}={value}: known are {', '.join(facts['choices'])}.")
    if "least" in facts and not number >= facts["least"]:
        raise ValueError(f"{said}={value} is below {facts['least']}.")
    if "holds" in facts and not facts["holds"](number):
        raise ValueError(f"{said}={value}: {facts['wanted']}.")
    return _changed(options, name, number)


def _changed(options: Options, name: str, value: Any) -> Options:
    """The options with one other value."""
    change: dict[str, Any] = {name: value}
    return replace(options, **change)


def _names(schema: type) -> list[str]:
    """Its options that are no group."""
    return [item.name for item in fields(schema) if item.name != "slurm"]


def _has_choices(key: str) -> bool:
    return any(f.name == key and "choices" in f.metadata for f in fields(LaunchOptions))


def _unknown(key: str) -> str:
    """The error text for an unknown key, with the nearest known ones."""
    names = _names(LaunchOptions)
    hint = did_you_mean(key, [*names, *field_names()], most=3, cutoff=0.5)
    return (
        f"Unknown setting {key!r}.{hint} Options of the launch: {', '.join(names)}. "
        "Settings of the training: see `python -m trainer --help`."
    )
