"""From Hydra's overrides to a `TrainConfig`: compose, check, and explain errors.

Only this module uses Hydra; all others receive the finished, constant `TrainConfig`.
"""

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer.config.help import dataclass_in
from trainer.config.schema import TrainConfig
from trainer.config.validation import check

CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "sweeps"
GROUPS = ("recipe", "model", "method", "loss")


def compose(overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration of one run.

    Args:
        overrides: Hydra's ``group=choice`` and ``path.to.field=value``.

    Raises:
        ValueError: an unknown key or choice, a wrong type, a value out of range.
    """
    store = ConfigStore.instance()
    if "schema.yaml" not in store.repo:
        store.store(name="schema", node=structured(TrainConfig))
    try:
        with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
            composed = hydra_compose("train", list(overrides))
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error, overrides)) from error
    return check(_as_constant(config))


def from_json(text: str) -> TrainConfig:
    """The configuration written by `trainer.config.fingerprint.config_json`."""
    merged = OmegaConf.merge(structured(TrainConfig), json.loads(text))
    return _as_constant(OmegaConf.to_object(merged))


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
        key, _, value = override.partition("=")
        key = key.lstrip("+~")
        if not _ or not key:
            return f"{override!r} is no setting; write key=value, such as optim.epochs=10."
        if key in GROUPS and value not in choices(key):
            return f"Unknown {key} {value!r}; known: {', '.join(choices(key))}."
        if key not in GROUPS and key not in field_names():
            near = difflib.get_close_matches(key, [*field_names(), *GROUPS], n=3, cutoff=0.4)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            return f"Unknown setting {key!r}.{hint} `python -m trainer --help` lists all."
    root = error
    while root.__cause__ is not None:
        root = root.__cause__  # type: ignore[assignment]
    text = re.sub(r"\s*\n\s*(full_key|object_type|reference_type)", r"; \1", str(root)).strip()
    return f"The configuration is not valid: {text}"


def structured(schema: type) -> DictConfig:
    """A schema as a writable OmegaConf node; OmegaConf makes frozen dataclasses read-only."""
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


def _as_constant(config: Any) -> TrainConfig:
    """OmegaConf's result as a hashable `TrainConfig`."""
    constant = with_tuples(config)
    assert isinstance(constant, TrainConfig)
    return constant
