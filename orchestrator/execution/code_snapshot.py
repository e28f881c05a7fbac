"""Copies the code of a launch under the root, so that an edit of the checkout changes no cell.

Jobs in a queue start hours later, and workers import while others train; without a copy one grid
would mix versions of the code unnoticed.
"""

import hashlib
import shutil
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from orchestrator.execution.provenance import CHECKOUT

CODE_PACKAGES = ("datasets", "orchestrator", "slurm", "sweeps", "trainer")


def snapshot_code(folder: Path) -> Path:
    """Copy the packages below a folder, once per content; returns ``<folder>/<sha256>``.

    Raises:
        OSError: the folder cannot be written.
    """
    return store_code(folder, _read(CHECKOUT))


def is_whole(copy: Path) -> bool:
    """Whether the content of a copy is what its name says."""
    return copy.is_dir() and _digest(_read(copy)) == copy.name


@cache
def digest_of(*paths: str) -> str:
    """Sha256 of some files and folders of the checkout, as they are now.

    Args:
        paths: of what is read, such as trainer/ or orchestrator/trial.py.
    """
    files = _read(CHECKOUT)
    return _digest({name: files[name] for name in files if name.startswith(paths)})


def store_code(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files of the packages, by path, below a folder; returns ``<folder>/<sha256>``.

    Raises:
        OSError: the folder cannot be written.
    """
    target = folder / _digest(files)
    if is_whole(target):
        return target
    # Written aside and renamed, so that no worker imports from half a copy.
    part = folder / f".{target.name}.{uuid.uuid4().hex[:8]}"
    for path, content in files.items():
        (part / path).parent.mkdir(parents=True, exist_ok=True)
        (part / path).write_bytes(content)
    if target.is_dir():  # its content is not what its name says: it was edited
        target.rename(part.with_suffix(".old"))
        shutil.rmtree(part.with_suffix(".old"), ignore_errors=True)
    try:
        part.rename(target)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        if not target.is_dir():  # else another launch took the same one just now
            raise
    return target


def _read(root: Path) -> dict[str, bytes]:
    """Every file of the packages, by its path; new files that git does not know yet, too."""
    files = {}
    for package in CODE_PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if is_code(path) and path.is_file():
                files[str(path.relative_to(root))] = path.read_bytes()
    return files


def is_code(path: Path) -> bool:
    """Whether a file of the packages is part of a copy."""
    return path.suffix != ".pyc" and not path.name.startswith(".")


def _digest(files: Mapping[str, bytes]) -> str:
    """Sha256 over names and contents."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()
