"""What a configuration says apart from its seed, and apart from where and how fast it ran."""

import hashlib
import json
import re
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from trainer.config import TrainConfig

SEED = r',"seed":\d+\}$'  # of a configuration: of sorted names the seed comes last


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
    """The fields that can move the numbers, as `trainer.fingerprint` chooses them."""
    known = {item.name: item for item in fields(schema)}
    kept: dict[str, Any] = {}
    for name, value in plain.items():
        item = known.get(name)
        facts = {} if item is None else item.metadata
        if facts.get("role") == "execution" or ("neutral" in facts and facts["neutral"] == value):
            continue
        nested = item is not None and is_dataclass(item.type) and isinstance(value, dict)
        kept[name] = _moving(value, item.type) if item is not None and nested else value
    return kept
