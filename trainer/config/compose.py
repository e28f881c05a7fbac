"""From Hydra's overrides to a `TrainConfig`: compose, check, and explain errors.

Only this module uses Hydra and OmegaConf; all others receive the finished, constant `TrainConfig`.
They are imported where they are needed, since most commands find what earlier ones composed
(`trainer.config.composed`).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.storage.open import folder_of
from datasets.wording import did_you_mean
from trainer.config.composed import keep, kept
from trainer.config.help import choices_of, dataclass_in, expected
from trainer.config.schema import Track, TrainConfig
from trainer.config.validation import check

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "sweeps"
_INNER = ("full_key", "object_type", "reference_type")  # lines of OmegaConf about its own objects
_FULL_KEY = re.compile(r"^\s*full_key: (.*)$", re.MULTILINE)  # a line of OmegaConf's errors
_INDEX = re.compile(r"\[\d+\]$")  # of an entry of a list
_SEVERAL = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag)\(")  # Hydra's words for it
_ENCLOSED = re.compile(r"'[^']*'|\"[^\"]*\"|\\.|\[.*\]|\{.*\}")  # where a comma is no list
# A name, which the grammar reads as it stands.
_PLAIN = re.compile(r"(?!(null|true|false|inf|nan)$)[a-z_][a-z0-9_]*", re.ASCII | re.IGNORECASE)
_SEED = re.compile(r',"seed":(0|[1-9]\d{0,17})\}$')  # of sorted names the last
GROUPS = ("recipe", "model", "method", "loss", "colour", "track")


def compose(overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration of one run.

    Args:
        overrides: Hydra's ``group=choice`` and ``path.to.field=value``.

    Raises:
        ValueError: an unknown key or choice, a wrong type, a value out of range.
    """
    config = _composed(overrides)
    if config.method.track is Track.released:
        # After the file of recipe and method, before the words of the command line.
        config = _composed([f"+released={_released_file(config)}", *overrides], said=overrides)
    return check(config)


def check_are_read(overrides: Sequence[str], config: TrainConfig) -> None:
    """Refuse words that set what only other methods read.

    Not a part of `compose`: a grid gives its overrides to cells of all methods.

    Args:
        overrides: the words that `config` was composed from.
        config: the configuration of one run.

    Raises:
        ValueError: names the word and the methods that read it.
    """
    algorithm = config.method.algorithm
    readers = {
        f"method.{item.name}": item.metadata.get("algorithms", (algorithm,))
        for item in fields(config.method)
    }
    for override in overrides:
        group = ".".join(override.lstrip("+~").partition("=")[0].split(".")[:2])
        if algorithm not in readers.get(group, (algorithm,)):
            raise ValueError(
                f"{override} is read by method.algorithm={' and '.join(readers[group])}, and this "
                f"run has {algorithm}; leave it out, or choose that method."
            )


def _composed(overrides: Sequence[str], said: Sequence[str] | None = None) -> TrainConfig:
    """What Hydra composes, unchecked; `said` are the words that errors speak of."""
    try:
        words = tuple(quoted(word) for word in overrides)
        # An interpolation may read the environment.
        is_constant = not any("${" in word for word in words)
        config = _composed_once(words, _state_of_files()) if is_constant else _by_hydra(words)
    # Beside their own errors, Hydra and OmegaConf answer words of a wrong shape with bare
    # assertions, AttributeErrors and TypeErrors; none of our code runs in this block.
    except Exception as error:
        raise ValueError(explain(error, overrides if said is None else said)) from error
    _check_lists(config)
    return config


@lru_cache(maxsize=256)
def _composed_once(words: tuple[str, ...], files: tuple[object, ...]) -> TrainConfig:
    """What Hydra composes, lists not yet checked, now or in an earlier process.

    Args:
        words: in Hydra's grammar.
        files: the state of those that Hydra reads; a plan of tomorrow reads what changed.
    """
    config = kept(words, CONFIG_FOLDER, files)
    if config is None:
        config = _by_hydra(words)
        keep(words, CONFIG_FOLDER, files, config)
    return config


def _by_hydra(words: Sequence[str]) -> TrainConfig:
    """What Hydra composes; each composition takes 0.07 s of CPU."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    if "schema.yaml" not in store.repo:
        store.store(name="schema", node=structured(TrainConfig))
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        composed = hydra_compose("train", list(words))
    config = with_tuples(OmegaConf.to_object(composed))
    assert isinstance(config, TrainConfig)
    return config


def _state_of_files() -> tuple[object, ...]:
    """Name, time of change and size of every file in `sweeps`; takes 1 ms."""
    paths = sorted(CONFIG_FOLDER.rglob("*.yaml"))
    stats = ((path, path.stat()) for path in paths)
    return tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in stats)


def quoted(override: str) -> str:
    """The word that Hydra's grammar reads as the user means it, where a setting holds any text.

    The grammar knows the letters of English, and gives `=`, `,`, `(`, `#`, `~` and others a meaning
    of their own; paths hold them all. What it does read as text, with its own quotes, escapes or
    interpolation, stays as it is. ~/ is left by shells behind `data.root=`.
    """
    key, equals, value = override.partition("=")
    if key.lstrip("+") not in _text_fields() or not equals or "${" in value:
        return override
    if _PLAIN.fullmatch(value):
        return override
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
        is_understood = parsed.value() == value or value[:1] in ("'", '"') or "\\" in value
    except HydraException:
        is_understood = False
    if is_understood and not value.startswith("~/"):
        return override
    text = str(folder_of(value)) if value.startswith("~/") else value
    # Within quotes only a quote, and backslashes before one, need a backslash.
    text = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"{key}='{text}'"


@cache
def _text_fields(schema: Any = TrainConfig, prefix: str = "") -> frozenset[str]:
    """Dotted names of the fields that hold any text."""
    names: set[str] = set()
    for item in fields(schema):
        inner = dataclass_in(item.type)
        if inner is not None:
            names |= _text_fields(inner, f"{prefix}{item.name}.")
        elif item.type is str and not choices_of(item):
            names.add(prefix + item.name)
    return frozenset(names)


def _released_file(config: TrainConfig) -> str:
    """The name of the file in sweeps/released of a method and a recipe.

    Raises:
        ValueError: there is none.
    """
    name, files = f"{config.method.algorithm}_{config.recipe}", choices("released")
    if name not in files:
        known: dict[str, list[str]] = {}
        for method, _, recipe in (file.rpartition("_") for file in files):
            known.setdefault(method, []).append(recipe)
        offers = ", ".join(f"{method} ({', '.join(recipes)})" for method, recipes in known.items())
        raise ValueError(
            f"track=released: there are no settings of the released code of "
            f"method={config.method.name} on recipe={config.recipe}, only of {offers}."
        )
    return name


def from_json(text: str) -> TrainConfig:
    """The configuration written by `trainer.config.fingerprint.config_json`; a constant.

    Raises:
        ValueError: the text is not of today's schema.
    """
    # OmegaConf takes 20 ms for a text, and a launch reads those of thousands of cells that differ
    # in their seed alone.
    seed = _SEED.search(text)
    if seed is None:
        return _from_json(text)
    return replace(_from_json(f"{text[: seed.start()]}}}"), seed=int(seed[1]))


@lru_cache(maxsize=256)
def _from_json(text: str) -> TrainConfig:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge(_schema(), json.loads(text))
        config = with_tuples(OmegaConf.to_object(merged))
        assert isinstance(config, TrainConfig)
        _check_lists(config)
        return config
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise ValueError(f"{_text_of(error)}. The checkout that wrote it reads it.") from error


def choices(group: str) -> list[str]:
    """The choices of a group such as ``method``: its files in `sweeps`."""
    return sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml"))


def field_names(schema: Any = TrainConfig, prefix: str = "") -> list[str]:
    """Dotted names of every field of the schema."""
    names = []
    for item in fields(schema):
        inner = dataclass_in(item.type)
        if inner is not None:
            names += field_names(inner, f"{prefix}{item.name}.")
        else:
            names.append(f"{prefix}{item.name}")
    return names


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """An error message of one or two sentences: the wrong setting, and the ones that exist."""
    for override in overrides:
        problem = _problem_of(override) or _several(quoted(override))
        if problem:
            return problem
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    drawn = [word for word in overrides if word.lstrip("+~").startswith("data.drawn")]
    is_expected = isinstance(error, HydraException | OmegaConfBaseException)  # raised on purpose
    if drawn and not is_expected:
        return (
            f"{drawn[0]!r} cannot be set: data.drawn is null in this recipe; recipe=synthetic says "
            "how scenes are drawn."
        )
    return _misfit(error, overrides) or _text_of(error)


def _misfit(error: Exception, overrides: Sequence[str]) -> str:
    """Which setting has a value that it cannot have, and what it takes; empty where unknown."""
    name = _FULL_KEY.findall(str(_cause(error)))
    words = {word.lstrip("+~").partition("=")[0]: word for word in overrides}
    words = {key: word for key, word in words.items() if key not in GROUPS}
    unread = [key for key, word in words.items() if not _is_readable(word)]
    key = _INDEX.sub("", next(iter([*unread, *name]), ""))
    # A value may have been given to the whole part, such as optim={lr: x}.
    parts = [part for part in words if f"{key}.".startswith(f"{part}.")]
    given = words[max(parts, key=len)] if parts else key
    if "${" in given:
        return (
            f"{given} cannot be filled in: ${{...}} takes the whole name of another setting, such "
            "as ${optim.epochs}, or ${oc.env:NAME} of a variable that is set; write the value."
        )
    if not _is_field_or_part(key):
        return _problem_of(f"{key}=") if key else ""
    kind = _type_of(key)
    if (inner := dataclass_in(kind)) is not None:
        one = fields(inner)[0].name
        return f"{given} is not valid: set what belongs to {key} by name, such as {key}.{one}=..."
    return f"{given} is not valid: {key} takes {expected(kind)}."


def _is_readable(override: str) -> bool:
    """Whether Hydra's grammar can read a word."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(quoted(override))
    except HydraException:
        return False
    return True


def _type_of(key: str) -> Any:
    """The type of a setting, by its dotted name."""
    kind: Any = TrainConfig
    for name in key.split("."):
        kind = next(item.type for item in fields(dataclass_in(kind)) if item.name == name)
    return kind


def _problem_of(override: str) -> str:
    """What is wrong with the name in one override; empty if it exists."""
    key, equals, value = override.partition("=")
    key = key.lstrip("+~")
    if not equals or not key:
        return f"{override!r} is no setting; write key=value, such as optim.epochs=10."
    if key in GROUPS:
        known = choices(key)
        near = did_you_mean(value, known)
        text = f"Unknown {key} {value!r}; known: {', '.join(known)}.{near}"
        return "" if value in known else text
    if _is_field_or_part(key):
        return ""
    hint = did_you_mean(key, [*field_names(), *GROUPS], most=3, cutoff=0.4)
    return f"Unknown setting {key!r}.{hint} `python -m trainer --help` lists all."


def _several(override: str) -> str:
    """The answer to several values of one setting; empty where there is one."""
    key, _, value = override.partition("=")
    if not _SEVERAL.match(value) and "," not in _ENCLOSED.sub("", value):
        return ""
    return (
        f"{key}={value} gives several values, and a run has one. To compare values, write "
        f"`product: {{{key}: [...]}}` in a grid of your own; a list is written {key}=[...]."
    )


def _is_field_or_part(key: str) -> bool:
    """Whether a dotted name is a field, or a part of the schema that holds fields."""
    return any(f"{name}.".startswith(f"{key}.") for name in field_names())


def _text_of(error: BaseException) -> str:
    """What Hydra or OmegaConf say, on one line."""
    lines = [line.strip() for line in str(_cause(error)).splitlines()]
    names = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    said = "; ".join(line for line in lines if line.strip("^") and not line.startswith(_INNER))
    return f"The configuration is not valid: {''.join(f'{name}: ' for name in names)}{said}"


def _cause(error: BaseException) -> BaseException:
    """The first of the errors that led to one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@cache
def _schema() -> "DictConfig":
    """The schema of a run, to be merged with values; nobody changes it."""
    return structured(TrainConfig)


def structured(schema: type) -> "DictConfig":
    """A schema as a writable OmegaConf node; OmegaConf makes frozen dataclasses read-only."""
    from omegaconf import DictConfig, OmegaConf

    config: DictConfig = OmegaConf.structured(schema)
    nodes = [config]
    for node in nodes:
        OmegaConf.set_readonly(node, False)
        nodes += [inner for inner in node.values() if isinstance(inner, DictConfig)]
    return config


def with_tuples(value: Any) -> Any:
    """Replace lists by tuples at every level: OmegaConf returns lists, which cannot be hashed."""
    if not is_dataclass(value) or isinstance(value, type):
        return tuple(value) if isinstance(value, list) else value
    changed = {item.name: with_tuples(getattr(value, item.name)) for item in fields(value)}
    return replace(value, **changed)


def _check_lists(part: Any, prefix: str = "") -> None:
    """Refuse a list inside a list, which OmegaConf lets pass whatever the field's type is."""
    for item in fields(part):
        name, value = prefix + item.name, getattr(part, item.name)
        if is_dataclass(value):
            _check_lists(value, f"{name}.")
        elif isinstance(value, tuple) and any(isinstance(entry, list | dict) for entry in value):
            raise ValueError(f"{name}={list(value)}: each entry is one value, not a list or table.")
