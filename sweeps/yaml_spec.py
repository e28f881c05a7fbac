"""Reading and checking the YAML of grids and tables; errors name the file and the place in it."""

import difflib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

Spec = dict[str, Any]

AXES = ("recipe", "split", "backbone", "crop", "method", "loss")

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def find(name_or_path: str, folder: Path, kind: str) -> Path:
    """The file of a name in `folder`, or of a path to a YAML file.

    Raises:
        ValueError: there is no such file; the text lists the known names.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            raise ValueError(f"There is no {kind} file {path}; give a YAML file that exists.")
        return path
    named = folder / f"{name_or_path}.yaml"
    if not named.is_file():
        known = ", ".join(names(folder))
        raise ValueError(
            f"Unknown {kind} {name_or_path!r}; known: {known}. "
            f"A {kind} of your own is given as a path, such as ./{name_or_path}.yaml."
        )
    return named


def names(folder: Path) -> list[str]:
    """Names of the YAML files in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read(path: Path) -> Spec:
    """A YAML mapping.

    Raises:
        ValueError: the file is no YAML, no mapping, or says something twice.
    """
    try:
        content = path.read_text(encoding="utf-8")
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        loaded = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid YAML: {error}") from error
    _refuse_repeats(node, path)
    return mapping(loaded, str(path))


def mapping(value: Any, where: str) -> Spec:
    """The value as a mapping of names, or a ValueError that says where it stands."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: expected `name: value` lines, found {_shown(value)}.")
    return value


def sequence(value: Any, where: str) -> list[Any]:
    """The value as a list that is not empty."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}: expected a list such as [a, b], found {_shown(value)}.")
    return value


def texts(value: Any, where: str) -> tuple[str, ...]:
    """The value as a list of texts; an empty list is fine."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{where}: expected a list of texts, found {_shown(value)}.")
    return tuple(value)


def text(value: Any, where: str) -> str:
    """The value as a text; a number is meant as one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: expected a text, found {_shown(value)}.")
    return str(value)


def check_keys(
    spec: Spec, where: str, known: Collection[str], needed: Collection[str] = ()
) -> None:
    """Every key is known and every needed one is there.

    Raises:
        ValueError: names the key, what it may have meant, and all known ones.
    """
    for key in spec:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{where}: unknown key {key!r}.{hint} Known: {', '.join(known)}.")
    for key in needed:
        if key not in spec:
            raise ValueError(f"{where}: {key!r} is missing; add it.")


def check_axes(axes: Spec, where: str) -> Spec:
    """The axes of a cell, each with one value of the right type.

    Raises:
        ValueError: an unknown axis or a value no cell can have.
    """
    for axis, value in axes.items():
        check_axis(axis, value, where)
    return axes


def check_axis(axis: str, value: Any, where: str) -> None:
    """One axis with one value; `check_axes` for many."""
    if axis == "seed":
        raise ValueError(f"{where}: seeds are no axis; write `seeds: [12345, 1]` in the grid.")
    if axis not in AXES:
        near = difflib.get_close_matches(axis, AXES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{where}: unknown axis {axis!r}.{hint} Known: {', '.join(AXES)}.")
    if axis == "crop":
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{where}: crop is a number of pixels such as 321, not {value!r}.")
    elif not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(
            f"{where}: {axis} is a name of letters, digits, - and _, not {value!r} "
            "(YAML reads 1_16 as a number and 1/16 is no name; splits read p1_1of16)."
        )


def complete(axes: Spec, where: str) -> Spec:
    """The axes themselves, when none is missing."""
    missing = [axis for axis in AXES if axis not in axes]
    if missing:
        raise ValueError(f"{where}: a cell needs {', '.join(missing)} too; add it under `cell`.")
    return axes


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _refuse_repeats(node: Any, path: Path) -> None:
    """Raise where a key stands twice: PyYAML silently keeps only the last one."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ValueError(f"{path}, line {line}: {key.value!r} stands twice; keep one.")
            seen.add(key.value)
            _refuse_repeats(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeats(value, path)
