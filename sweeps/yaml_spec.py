"""Reading and checking the YAML of grids and tables; errors name the file and the place in it."""

import difflib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from datasets.known.yaml_values import load_yaml, yaml_problem
from datasets.wording import did_you_mean, did_you_mean_path
from sweeps.cell import Cell, setting_text

Spec = dict[str, Any]

AXES = ("recipe", "split", "backbone", "crop", "method", "loss")

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_DIGITS = re.compile(r"[0-9_]+")  # on a command line Hydra reads 1_16 as 116
_SETTING = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")  # such as loss.alpha
_VALUE = re.compile(r"-?[A-Za-z0-9_.-]+")

_OTHER_NUMBER = re.compile(r"-0|-?(0[0-9_]+|[0-9]+_[0-9_]*|[0-9_]+[eE]-?[0-9]+)")  # '010', 1_0
_LONGEST_KEY = 180  # without the seed: of 255 bytes of a file name attempt and ending take the rest

# Keys whose values are texts for people, whatever they look like: a label 1.50 prints so.
_TEXTS = ("title", "label", "corner", "note", "source", "notes", "labels", "minus")


def find(name_or_path: str, folder: Path, kind: str) -> Path:
    """The file of a name in `folder`, or of a path to a YAML file.

    Raises:
        ValueError: there is no such file; the text lists the known names.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            near = did_you_mean_path(path)
            if not near and path.stem in names(folder):
                near = f" The {kind} {path.stem!r} of this project is given by its name alone."
            raise ValueError(f"There is no {kind} file {path}.{near or ' Give a YAML file.'}")
        return path
    named = folder / f"{name_or_path}.yaml"
    if not named.is_file():
        known = names(folder)
        beside = [file for ending in (".yaml", ".yml") if (file := f"{name_or_path}{ending}")]
        own = [f"./{file}" for file in beside if Path(file).is_file()]
        near = f" Did you mean {own[0]}?" if own else did_you_mean(name_or_path, known)
        raise ValueError(
            f"Unknown {kind} {name_or_path!r}; known: {', '.join(known)}.{near} "
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
        loaded = load_yaml(
            content,
            texts=_TEXTS,
            keys_are_texts=True,
            check=lambda node: _refuse_repeats(node, path),
        )
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid YAML: {yaml_problem(error)}.") from error
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
    return tuple(_one_line(item, where) for item in value)


def text(value: Any, where: str) -> str:
    """The value as a text; a number is meant as one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: expected a text, found {_shown(value)}.")
    return _one_line(str(value), where)


def _one_line(value: str, where: str) -> str:
    """The text on one line, which every format can print."""
    line = " ".join(value.split())
    if not line.isprintable():
        raise ValueError(f"{where}: {_shown(value)} holds a character that cannot be printed.")
    return line


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
    if _SETTING.fullmatch(axis):
        _check_setting(axis, value, where)
        return
    if axis not in AXES:
        near = difflib.get_close_matches(axis, AXES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{where}: unknown axis {axis!r}.{hint} Known: {', '.join(AXES)}, "
            "and every setting of the training by its whole name, such as loss.alpha."
        )
    if axis == "crop":
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{where}: crop is a number of pixels such as 321, not {value!r}.")
    elif not isinstance(value, str) or not _NAME.fullmatch(value) or _DIGITS.fullmatch(value):
        raise ValueError(
            f"{where}: {axis} is a name of letters, digits, - and _, not {value!r} "
            "(Hydra reads 1_16 as a number and 1/16 is no name; splits read p1_1of16)."
        )


def _check_setting(name: str, value: Any, where: str) -> None:
    """A setting with one value that can stand in the name of a folder; the trainer checks it."""
    text = setting_text(value)
    is_single = isinstance(value, str | int | float) and _VALUE.fullmatch(text)
    if not is_single or (isinstance(value, str) and re.search(r"\dp\d|\.", value)):
        raise ValueError(f"{where}: {name} takes numbers and names, not {_shown(value)}.")
    if isinstance(value, str) and _OTHER_NUMBER.fullmatch(value):
        # The trainer reads a number, so two keys would stand for one configuration.
        raise ValueError(f"{where}: {name} is {value!r}; write the number plainly, unquoted.")


def cell_of(axes: Spec, where: str) -> Cell:
    """The cell of axes and settings.

    Raises:
        ValueError: an axis is missing, or the key would be too long for the name of a file.
    """
    settings = {name: value for name, value in axes.items() if name not in AXES}
    named = {name: value for name, value in axes.items() if name in AXES}
    cell = Cell(**_complete(named, where)).with_settings(settings)
    length = len(cell.key.rpartition(".s")[0])
    if length > _LONGEST_KEY:
        raise ValueError(
            f"{where}: the name of the cell would have {length} characters, and files are named "
            f"after it; at most {_LONGEST_KEY} are possible. Choose shorter names, or write "
            f"settings that all cells share under `overrides`. It begins with {cell.key[:60]}"
        )
    return cell


def _complete(axes: Spec, where: str) -> Spec:
    """The axes themselves, when none is missing."""
    missing = [axis for axis in AXES if axis not in axes]
    if missing:
        needs = ", ".join(missing)
        raise ValueError(f"{where}: a cell needs {needs} too; add it to the cell or its block.")
    return axes


def _shown(value: Any) -> str:
    shown = "nothing" if value is None else repr(value)
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
