"""The identity of a configuration: fingerprints, differences, and settings without the seed.

Fields that say only where or how fast a run executes are left out, so the fingerprint is the same
on every machine.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any

from trainer.config.schema import Track, TrainConfig
from trainer.method_registry import METHODS


def fingerprint(config: TrainConfig) -> str:
    """Sha256 of the canonical JSON of the identity fields.

    Fields made by `execution()` are left out, and so are the settings of other methods. A field
    that was added later carries its `neutral` value in its metadata and is left out while it has
    that value, so a new option moves no hash.
    """
    return hashlib.sha256(_canonical(identity(config)).encode()).hexdigest()


def fingerprints(configs: Mapping[str, TrainConfig]) -> dict[str, str]:
    """The fingerprint of each configuration; those that differ in the seed share all before it."""
    begun: dict[tuple[int, ...], Any] = {}  # sha256 of the text before the seed, to be copied
    parts = attrgetter(*(item.name for item in fields(TrainConfig) if item.name != "seed"))
    hashes: dict[str, str] = {}
    for name, config in configs.items():
        # id() instead of hashing: `cell_configs` shares equal parts as one object. Equal parts that
        # are two objects only cost the time to make the same text again.
        kind = tuple(map(id, parts(config)))
        seed = f'"seed":{config.seed}}}'  # of sorted names the last
        if kind not in begun:
            text = _canonical(identity(config))
            assert text.endswith(seed), "the seed is no longer the last field"
            begun[kind] = hashlib.sha256(text.removesuffix(seed).encode())
        whole = begun[kind].copy()
        whole.update(seed.encode())
        hashes[name] = whole.hexdigest()
    return hashes


def identity(config: TrainConfig) -> dict[str, Any]:
    """The identity fields as nested plain data."""
    plain = _plain(config, identity_only=True)
    assert isinstance(plain, dict)
    return plain


def config_json(config: TrainConfig) -> str:
    """The whole configuration, execution fields too, as canonical JSON."""
    return _canonical(_plain(config, identity_only=False))


def differences(old_json: str, config: TrainConfig) -> list[str]:
    """Identity fields whose value changed since `old_json` was written.

    Args:
        old_json: a text of `config_json`.
        config: today's configuration.

    Returns:
        Lines such as ``optim.lr: 0.0005 -> 0.001``, sorted by field.
    """
    facts = _facts(type(config))
    # A text from before a field was added means its neutral value.
    later = {
        name: _plain(fact["neutral"], identity_only=False)
        for name, fact in facts.items()
        if "neutral" in fact
    }
    before = later | _flat(json.loads(old_json))
    now = _flat(json.loads(config_json(config)))
    return [
        f"{name}: {_text(before, name)} -> {_text(now, name)}"
        for name in sorted(set(before) | set(now))
        if facts.get(name, {}).get("role") != "execution"
        and config.method.algorithm in facts.get(name, {}).get("algorithms", METHODS)
        and before.get(name, _ABSENT) != now.get(name, _ABSENT)
    ]


def settings_differences(old_json: str, new_json: str) -> tuple[str, ...]:
    """As `differences`, between two texts of `config_json`; their seeds do not count."""
    return _settings_differences(without_seed(old_json), without_seed(new_json))


@cache
def _settings_differences(old_json: str, new_json: str) -> tuple[str, ...]:
    before, now = (_flat(json.loads(_settings(text))) for text in (old_json, new_json))
    return tuple(
        f"{name}: {_text(before, name)} -> {_text(now, name)}"
        for name in sorted(set(before) | set(now))
        if before.get(name, _ABSENT) != now.get(name, _ABSENT)
    )


_ABSENT = "(absent)"


def _facts(schema: Any, prefix: str = "") -> dict[str, Mapping[str, Any]]:
    """The metadata of every field by its dotted name."""
    facts: dict[str, Mapping[str, Any]] = {}
    for item in fields(schema):
        if is_dataclass(item.type):
            inner = _facts(item.type, f"{prefix}{item.name}.")
            facts |= {name: {**item.metadata, **fact} for name, fact in inner.items()}
        else:
            facts[f"{prefix}{item.name}"] = item.metadata
    return facts


def _text(values: dict[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else _ABSENT


def _plain(value: Any, *, identity_only: bool) -> Any:
    """Dataclasses, enums and tuples as JSON data."""
    if is_dataclass(value):
        chosen = {}
        for item in fields(value):
            inner = getattr(value, item.name)
            algorithm = getattr(value, "algorithm", None)
            plain = _plain(inner, identity_only=identity_only)
            if identity_only and _left_out(item.metadata, plain, algorithm):
                continue
            chosen[item.name] = plain
        return chosen
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(inner, identity_only=identity_only) for inner in value]
    return value


def _left_out(metadata: Mapping[str, Any], value: Any, algorithm: str | None) -> bool:
    """Whether a field is no part of the fingerprint, see `fingerprint`.

    Args:
        metadata: of the field.
        value: of the field, as plain JSON data.
        algorithm: of the method, where the field belongs to its configuration.
    """
    if metadata.get("role") == "execution":
        return True
    if "algorithms" in metadata and algorithm not in metadata["algorithms"]:
        return True
    return "neutral" in metadata and _plain(metadata["neutral"], identity_only=True) == value


def _canonical(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _flat(plain: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as dotted names; an empty dict keeps its name."""
    if not isinstance(plain, dict):
        return {prefix[:-1]: plain}
    flat: dict[str, Any] = {}
    for name, inner in plain.items():
        flat |= _flat(inner, f"{prefix}{name}.")
    return flat


SEED = r',"seed":\d+\}$'  # of a configuration: of sorted names the seed comes last


def track(config_json: str) -> str:
    """The track of a run, from a text of `config_json`; those of before there were two lack it."""
    released = f'"track":"{Track.released.value}"'  # the text has no spaces
    kind = Track.released if released in config_json else Track.common
    return str(kind.value)


def settings(config_json: str) -> str:
    """A row's configuration without its seed and without fields that cannot move the numbers."""
    return _settings(without_seed(config_json))


def settings_sha256(config_json: str) -> str:
    """Sha256 of the settings: equal for all seeds of one experiment, whatever machine they ran on.

    Rows carry it, so that tables of many rows need not read their configurations.
    """
    return _sha256(without_seed(config_json))


def without_seed(config_json: str) -> str:
    """The text without its seed."""
    return re.sub(SEED, "}", config_json)


@cache
def _sha256(config_json: str) -> str:
    try:
        text = _settings(config_json)
    except ValueError:  # no JSON: a row of a finished run is published all the same
        text = config_json
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _settings(config_json: str) -> str:
    plain = json.loads(config_json)
    if isinstance(plain, dict):
        plain = _moving(plain, TrainConfig)
        plain.pop("seed", None)
    return json.dumps(plain, sort_keys=True)


def _moving(plain: dict[str, Any], schema: Any) -> dict[str, Any]:
    """The fields that can change a result, chosen as `fingerprint` does, from plain JSON data."""
    known = {item.name: item for item in fields(schema)}
    kept: dict[str, Any] = {}
    for name, value in plain.items():
        item = known.get(name)
        if item is not None and is_dataclass(item.type) and isinstance(value, dict):
            value = _moving(value, item.type)
        if item is None or not _left_out(item.metadata, value, plain.get("algorithm")):
            kept[name] = value
    return kept
