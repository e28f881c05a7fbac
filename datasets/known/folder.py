"""A user's own folder of images: its `dataset.yaml` says what it holds."""

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from datasets.errors import DataError
from datasets.known.interface import KnownDataset
from datasets.known.yaml_values import load_yaml, yaml_problem
from datasets.spec import DatasetSpec, voc_colour
from datasets.wording import did_you_mean_path

DESCRIPTION_FILE = "dataset.yaml"
EXAMPLE = """classes: [background, cell]   # by mask value from 0; or {0: background, 128: cell}
images: images/{id}.jpg      # below this folder; images/{id} takes all of .jpg, .png, ...
masks: masks/{id}.png        # masks/{stem}.png goes with images/{id}
ignore: 255                  # mask value that counts nowhere; null when there is none
"""
_KEYS = {"classes", "images", "masks", "ignore"}


class Description:
    """The content of a `dataset.yaml`, checked.

    Attributes:
        class_names: by class index.
        mask_values: mask value by class index.
        image_pattern: with {id}.
        mask_pattern: with {id} or {stem}.
        ignored_value: mask value that counts nowhere, or None.
    """

    def __init__(self, content: Any, path: Path) -> None:
        """Check what the file at `path` holds."""
        self._path = path
        if not isinstance(content, dict):
            raise self._wrong("it is no mapping")
        unknown = sorted(map(str, set(content) - _KEYS))
        if unknown:
            raise self._wrong(f"{unknown[0]!r} is unknown; known: {', '.join(sorted(_KEYS))}")
        lacking = sorted(_KEYS - {"ignore"} - set(content))
        if lacking:
            raise self._wrong(f"{lacking[0]!r} is missing")
        self.mask_values, self.class_names = self._classes(content["classes"])
        self.image_pattern = self._pattern(content["images"], "images", ("{id}",))
        self.mask_pattern = self._pattern(content["masks"], "masks", ("{id}", "{stem}"))
        self.ignored_value = self._ignored(content.get("ignore", 255))

    def _classes(self, classes: Any) -> tuple[tuple[int, ...], tuple[str, ...]]:
        named = dict(enumerate(classes)) if isinstance(classes, list) else classes
        if not isinstance(named, dict) or len(named) < 2:
            raise self._wrong("classes are a list, or value: name pairs, of at least two")
        for value, name in named.items():
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 255:
                raise self._wrong(f"the class value {value!r} is no number from 0 to 255")
            if not isinstance(name, str) or not name:
                raise self._wrong(f"the class name {name!r} is no text (quote it)")
        if len(set(named.values())) < len(named):
            raise self._wrong("two classes have the same name")
        if len(named) > 255:
            raise self._wrong("there are more than 255 classes")
        ordered = sorted(named)
        return tuple(ordered), tuple(named[value] for value in ordered)

    def _pattern(self, pattern: Any, key: str, variables: tuple[str, ...]) -> str:
        is_text = isinstance(pattern, str)
        if not is_text or sum(pattern.count(variable) for variable in variables) != 1:
            raise self._wrong(
                f"{key} is a path below this folder with {' or '.join(variables)} once"
            )
        path, rest = PurePosixPath(pattern), pattern
        for variable in variables:
            rest = rest.replace(variable, "")
        if "{" in rest or "}" in rest:
            raise self._wrong(
                f"{key} is {pattern!r}: beside {' or '.join(variables)} it has no braces"
            )
        if path.is_absolute() or ".." in path.parts:
            raise self._wrong(f"{key} is a path below this folder; link others in")
        if pattern != pattern.strip() or not pattern.isprintable():
            raise self._wrong(f"{key} is {pattern!r}, with blanks around it or a line end inside")
        return str(path)  # ./images is images

    def _ignored(self, value: Any) -> int | None:
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 255:
            raise self._wrong(f"ignore is {value!r}, no number from 0 to 255 and not null")
        if value in self.mask_values:
            # 255 is ignored where nothing is said, so a class of that value must say otherwise.
            raise self._wrong(f"{value} is both ignored and a class; say `ignore: null`")
        return value

    def _wrong(self, what: str) -> DataError:
        return DataError(f"{self._path}: {what}. It reads like this:\n{EXAMPLE}")


def read_description(root: Path) -> Description:
    """The description of the folder `root`.

    Raises:
        DataError: it is missing or wrong; the text shows how one reads.
    """
    path = root / DESCRIPTION_FILE
    if not root.exists():
        raise DataError(
            f"There is no folder {root}, so no {path}.{did_you_mean_path(root)} Name the folder of "
            "your images with root=DIR, or data.root=DIR of a training."
        )
    try:
        content = load_yaml(path.read_text(encoding="utf-8"), texts=("classes",))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path} is missing. It says what the folder holds; write it like this:\n{EXAMPLE}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = yaml_problem(error)
        raise DataError(f"{path} is no YAML: {problem}. It reads like this:\n{EXAMPLE}") from error
    return Description(content, path)


def _read_spec(root: Path) -> DatasetSpec:
    described = read_description(root)
    return replace(
        _SPEC,
        class_names=described.class_names,
        palette=tuple(voc_colour(label) for label in range(len(described.class_names))),
        image_pattern=described.image_pattern,
        mask_pattern=described.mask_pattern,
        mask_values=described.mask_values,
        ignored_value=described.ignored_value,
    )


_SPEC = DatasetSpec(
    name="folder",
    class_names=(),
    palette=(),
    image_pattern="images/{id}.jpg",
    mask_pattern="masks/{id}.png",
    kind="described",
    # Of a folder that is laid out as VOC or Cityscapes are.
    validation_list="ImageSets/Segmentation/val.txt",
    validation_prefix="val/",
)
FOLDER = KnownDataset(spec=_SPEC, read_spec=_read_spec)
