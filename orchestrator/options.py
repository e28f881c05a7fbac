"""The key=value words of a command: options of the launch, and settings of the training."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from trainer.config.compose import GROUPS, field_names
from trainer.config.help import settings


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


_VALUED = {"--explain": "table3/321/ipixmatch", "--check": "paper.tex"}

Backend = Literal["ray", "inline", "slurm", "auto"]


@dataclass(frozen=True)
class LaunchOptions:
    """How and where a grid runs; nothing here can move a number."""

    root: str = "outputs"  # of runs and results: a folder, or s3://bucket/prefix
    scratch: str = ""  # with root=s3://: folder for runs at work; empty: ~/.cache/ipixmatch/scratch
    backend: Backend = "ray"  # ray: Ray Tune and Train; slurm: one job a cell; auto: both
    ray_address: str = ""  # empty: an own local Ray; auto or host:port joins a cluster
    ranks: int = 1  # processes that train one cell together
    cpus_per_rank: int = 1  # cores that Ray or Slurm reserves
    gpus_per_rank: float = -1.0  # -1: one if there is a GPU, else none
    concurrency: int = 0  # cells at once; 0: as many as the resources allow
    to_ray: str = "*"  # backend=auto: cells that may go to Ray, as a glob over keys
    to_slurm: str = "*"  # and those that may go to Slurm; where both fit, the first free place
    only: str = "*"  # glob over cell keys
    rerun: Literal["none", "drifted", "all"] = "none"  # also run cells that are done
    retries: int = -1  # per cell and class of failure; -1: each class has its own number
    hang_minutes: float = 10.0  # without a step before a cell is ended as hanging; 0: never
    workers: Literal["auto", "group"] = "auto"  # group: own processes even for one CPU rank
    epoch: Literal["best", "last"] = "best"  # whose mIoU the tables print
    slurm: SlurmOptions = field(default_factory=SlurmOptions)  # slurm.KEY=VALUE, slurm=FILE


def joined(words: Sequence[str]) -> list[str]:
    """The words, with ``--explain CELL`` and ``--check FILE`` as one key=value each."""
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag in _VALUED:
            value = value if equals else next(rest, "")
            if not value:
                raise ValueError(f"{flag} needs a value, such as {flag} {_VALUED[flag]}.")
            found.append(f"{flag.removeprefix('--')}={value}")
        else:
            found.append(word)
    return found


def parse(words: Sequence[str]) -> tuple[LaunchOptions, tuple[str, ...]]:
    """Options of the launch and overrides of the training.

    Raises:
        ValueError: a word that is neither, or a value that does not fit.
    """
    chosen: dict[str, Any] = {}
    overrides = []
    slurm = SlurmOptions()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"{word!r} is no setting; write key=value, such as optim.epochs=10.")
        if key == "slurm" or key.startswith("slurm."):
            slurm = read_option(slurm, key, value)
        elif key in _READ:
            chosen[key] = _READ[key](key, value)
        elif key.lstrip("+~") in (*GROUPS, *field_names()):
            overrides.append(word)
        else:
            raise ValueError(_unknown(key))
    return LaunchOptions(**chosen, slurm=slurm), tuple(overrides)


def describe() -> str:
    """Every option with its default and what it means."""
    told = [line for option in settings(LaunchOptions) for line in option.lines()]
    first = next(number for number, line in enumerate(told) if line.startswith("  slurm."))
    file = "  slurm=FILE                      a YAML file of the following, without `slurm.`"
    return "\n".join([*told[:first], file, *told[first:]])


def _unknown(key: str) -> str:
    """What to write instead of a key that does not exist."""
    near = difflib.get_close_matches(key, [*_READ, *field_names()], n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return (
        f"Unknown setting {key!r}.{hint} Options of the launch: {', '.join(_READ)}. "
        "Settings of the training: see `python -m trainer --help`."
    )


def _text(key: str, value: str) -> str:
    if not value:
        raise ValueError(f"{key}= needs a value.")
    return value


def _at_least(least: int) -> Callable[[str, str], int]:
    def read(key: str, value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"{key}={value} is no whole number.") from None
        if number < least:
            raise ValueError(f"{key}={value} is below {least}.")
        return number

    return read


def _gpus(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{key}={value} is no number.") from None
    if number != -1.0 and (number < 0.0 or (number > 1.0 and number != int(number))):
        raise ValueError(f"{key}={value}: give a whole number, a part of one GPU, or -1.")
    return number


def _minutes(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{key}={value} is no number.") from None
    if not 0.0 <= number < float("inf"):
        raise ValueError(f"{key}={value}: give minutes, or 0 for never.")
    return number


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def read(key: str, value: str) -> str:
        if value not in choices:
            raise ValueError(f"{key}={value}: known are {', '.join(choices)}.")
        return value

    return read


_READ = cast(
    dict[str, Callable[[str, str], Any]],
    {
        "root": _text,
        "backend": _one_of("ray", "inline", "slurm", "auto"),
        "ray_address": _text,
        "ranks": _at_least(1),
        "cpus_per_rank": _at_least(1),
        "gpus_per_rank": _gpus,
        "concurrency": _at_least(0),
        "to_ray": _text,
        "to_slurm": _text,
        "only": _text,
        "rerun": _one_of("none", "drifted", "all"),
        "retries": _at_least(-1),
        "hang_minutes": _minutes,
        "workers": _one_of("auto", "group"),
        "epoch": _one_of("best", "last"),
        "scratch": _text,
    },
)
