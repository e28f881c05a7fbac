"""`manifest.json`: the sha256 of every image and mask, which identifies the data of a result."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets.errors import DataError
from datasets.files import atomic_write

FILE_NAME = "manifest.json"
_FORMAT = "ipixmatch data manifest 1"


@dataclass(frozen=True)
class Manifest:
    """The files of a dataset at its root.

    Attributes:
        dataset: name in `datasets.known.registry.KNOWN`.
        files: sha256 by path below the root, in POSIX form.
        drawing: how the scenes were drawn, or None when they were not drawn.
    """

    dataset: str
    files: dict[str, str]
    drawing: dict[str, int] | None = None


def read_manifest(root: Path) -> Manifest | None:
    """The manifest of a tree, or None when there is none.

    Raises:
        DataError: the file is broken.
    """
    path = root / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT:
            raise ValueError("unknown format")
        return Manifest(**content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read as a manifest of this program ({error}). Remove it and run "
            "`python -m datasets verify` again, or choose another root."
        ) from error


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest of a root, atomically."""
    path = root / FILE_NAME
    content = {"format": _FORMAT, **asdict(manifest)}
    atomic_write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def data_fingerprint(files: dict[str, str]) -> str:
    """One sha256 for all files of a manifest, whatever their order."""
    return _digest(f"{path} {files[path]}" for path in sorted(files))


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
