"""The object store of a root: opened once, asked at the door whether it answers."""

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from datasets.errors import Unreachable
from datasets.storage.base import Storage
from datasets.storage.open import PATIENCE_SECONDS, open_storage
from orchestrator.storage.paths import SCRATCH_VARIABLE, RootPaths

PATIENCE_VARIABLE = "STORE_PATIENCE_SECONDS"  # of the environment: before a run gives up
SHORT_PATIENCE = 10.0  # of those who may simply ask again later


def patience_seconds() -> float:
    """How long the store may fail until the end of a run gives up."""
    return float(os.environ.get(PATIENCE_VARIABLE, PATIENCE_SECONDS))


@lru_cache(maxsize=16)
def storage_of(url: str, *, patience: float | None = None) -> Storage:
    """The storage of a root's URL."""
    return open_storage(url, patience=patience_seconds() if patience is None else patience)


def exists(storage: Storage, name: str) -> bool:
    """Whether there is an object of this very name."""
    return any(entry.name == name for entry in storage.entries(name))


def check_root_address(root: str, scratch: str = "") -> None:
    """Use a root: ask an object store once whether it answers; a folder needs no question.

    Args:
        root: as the user wrote it.
        scratch: folder for runs at work under an object store; empty for the default.

    Raises:
        Unreachable: nobody answers.
        PermissionError: it refuses us.
        FileNotFoundError: there is no such bucket.
    """
    if scratch:  # workers take it from their environment
        os.environ[SCRATCH_VARIABLE] = str(Path(scratch).expanduser().absolute())
    places = RootPaths.at(root)
    if places.url:
        storage_of(places.url, patience=SHORT_PATIENCE).entries("grids/knock")


def upload_folder(root: str, folder: Path, paths: Sequence[Path]) -> list[str]:
    """Put printed files under an object store, too; returns their URLs.

    Args:
        root: where the results live; nothing happens for a folder.
        folder: below which the files have the names that they get.
        paths: files, or folders of files.
    """
    places = RootPaths.at(root)
    if not places.url:
        return []
    storage, found = storage_of(places.url), []
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    for file in files:
        if file.is_file():
            name = file.relative_to(folder).as_posix()
            storage.upload(file, name)
            found.append(f"{places.url}/{name}")
    return found


class StopObject:
    """The stop file of a launch as workers on other hosts see it.

    Args:
        url: of the root; empty for a folder, where the file itself is seen.
        name: of the object.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, name
        self._thread: threading.Thread | None = None

    def put(self) -> None:
        """Put it from a thread: a signal handler must not wait for a network."""
        if self._url and self._thread is None:
            self._thread = threading.Thread(target=self._put, name="stop object", daemon=True)
            self._thread.start()

    def remove(self) -> None:
        """Take it away again."""
        if self._thread is not None:
            self._thread.join()
            with suppress(Unreachable):
                storage_of(self._url, patience=SHORT_PATIENCE).remove([self._name])

    def _put(self) -> None:
        with suppress(OSError):  # workers of this host see the file
            storage_of(self._url, patience=SHORT_PATIENCE).write(self._name, b"")


def stop_name(stop_file: str) -> str:
    """Name of a launch's stop object, from its stop file on whatever host."""
    return f"grids/{stop_file.rpartition('/grids/')[2]}"
