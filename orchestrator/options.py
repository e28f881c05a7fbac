"""The key=value words of a command: options of the launch, and settings of the training."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from orchestrator.slurm_options import SlurmOptions, read_option
from trainer.compose import GROUPS, field_names
from trainer.field_notes import settings

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
