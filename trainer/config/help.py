"""The help of the configuration: name, default, choices and sentence of every field."""

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, get_args, get_origin

from datasets.cli import aligned


@dataclass(frozen=True)
class FieldHelp:
    """One field that a person may set.

    Attributes:
        name: dotted, as on the command line.
        default: as on the command line.
        choices: of a closed choice; empty otherwise.
        note: its sentence; without one, the first line of its Enum's docstring.
    """

    name: str
    default: str
    choices: tuple[str, ...]
    note: str

    def lines(self) -> Iterator[str]:
        """The setting as help shows it."""
        text = "; ".join(filter(None, [" | ".join(self.choices), self.note]))
        yield from aligned(f"{self.name}={self.default}", text)


def help_of_fields(schema: Any, prefix: str = "") -> Iterator[FieldHelp]:
    """Every field of a dataclass and of the dataclasses in it, in order.

    Args:
        schema: a dataclass whose fields all have defaults.
        prefix: of every name, with its dot.
    """
    for item in fields(schema):
        inner = dataclass_in(item.type)
        if inner is not None:
            yield from help_of_fields(inner, f"{prefix}{item.name}.")
        else:
            note = item.metadata.get("help") or _of_enum(item.type)
            yield FieldHelp(prefix + item.name, _plain(_default(item)), choices_of(item), note)


def dataclass_in(kind: Any) -> Any:
    """The dataclass a field holds, also behind `| None`; None for a plain field."""
    return next((k for k in (kind, *getattr(kind, "__args__", ())) if is_dataclass(k)), None)


def expected(kind: Any) -> str:
    """What a setting of a type takes, in words, such as "a whole number"."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(choice.name for choice in kind)}"
    if get_origin(kind) is tuple:
        return f"a list in brackets, each entry {expected(get_args(kind)[0])}"
    return _EXPECTED.get(kind, "a value")


_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _of_enum(kind: Any) -> str:
    is_enum = isinstance(kind, type) and issubclass(kind, Enum)
    return (kind.__doc__ or "").splitlines()[0].rstrip(".") if is_enum else ""


def _default(item: Field[Any]) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return item.default


def choices_of(item: Field[Any]) -> tuple[str, ...]:
    """What a closed choice may be: the names of an Enum, or the field's own list."""
    if isinstance(item.type, type) and issubclass(item.type, Enum):
        return tuple(choice.name for choice in item.type)
    return tuple(item.metadata.get("choices", ()))


def _plain(value: Any) -> str:
    """A default as one would type it."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]" if value else ""
    return str(value).lower() if isinstance(value, bool) else str(value)
