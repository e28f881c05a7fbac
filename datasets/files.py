"""Atomic writes (a file appears whole or not at all) and sha256. Needs no other package."""

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def atomic_write(path: Path, data: bytes | str, *, durable: bool = False) -> None:
    """Replace a file so that a reader sees the old content or the new one, never a part.

    Args:
        path: of the file; its folder is there.
        data: the whole content; text is written as UTF-8.
        durable: see `atomic_path`.
    """
    with atomic_path(path, durable=durable) as part:
        part.write_bytes(_bytes(data))


@contextmanager
def atomic_path(path: Path, *, part: Path | None = None, durable: bool = False) -> Iterator[Path]:
    """A temporary file beside `path`, which replaces `path` at the end of the block.

    After an error the temporary file is removed and `path` is as it was. A kill leaves at most the
    temporary file: its name begins with a dot and ends in `.tmp`, which every reader passes over.

    Args:
        path: of the file; its folder is there.
        part: the temporary file where its name matters: torch.save writes the name into the file,
            and a fixed name is found by the next start. Otherwise the name is new in every call,
            so that processes may write the same file at once.
        durable: whether content and name must survive a power cut (fsync of file and folder).

    Yields:
        The temporary file, which need not exist yet.

    Raises:
        OSError: of a full disk the text names `path`.
    """
    part = part or _temporary(path)
    try:
        yield part
        if durable:
            _sync(part)
        part.replace(path)  # rename(2) is atomic within a file system
    except OSError as error:
        # A failing write(2) names no file, as a failing open(2) does.
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            raise OSError(
                error.errno,
                f"Could not write {path}: {error.strerror}. Nothing there was changed; make room "
                "and try again",
            ) from error
        raise
    finally:
        part.unlink(missing_ok=True)
    if durable:
        _sync(path.parent)  # the new name is an entry of the folder


def atomic_create(path: Path, data: bytes | str) -> bool:
    """Write a file that survives a power cut, unless one is there; whether it was written.

    Of several processes that create the same file at once exactly one gets True.
    """
    part = _temporary(path)
    try:
        part.write_bytes(_bytes(data))
        _sync(part)
        path.hardlink_to(part)  # fails if `path` exists, where a rename would replace it
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
    _sync(path.parent)
    return True


def write_into(folder: Path, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write files by their path below a folder that nobody reads yet; their sha256 by path."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` at the end of the block.

    Several processes may do this at once; after an error nothing is left.

    Args:
        path: of the folder; not there, or empty. Through a link the folder behind it is filled.

    Yields:
        The temporary folder.

    Raises:
        OSError: `path` is not empty, for instance because another process was first.
    """
    if path.is_symlink():  # a folder cannot be renamed to a link; one that leads nowhere is said
        path = path.resolve(strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.making-", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp hides its folder from other users
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def walk_linked(start: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """A folder and all below it, each with the names of its folders and of its files, as os.walk.

    Linked folders are entered too, after all others. A folder that was there already is not
    entered again: images that are found twice could be both trained on and validated on, and a
    link to a folder above leads around for ever. Names removed from the list of folders are not
    entered either.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [start]
    while waiting:
        links: list[Path] = []
        for folder, names, files in (entry for top in waiting for entry in os.walk(top)):
            state = Path(folder).stat()
            if (state.st_dev, state.st_ino) in seen:
                names.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            names.sort()
            yield Path(folder), names, sorted(files)
            links += [path for name in names if (path := Path(folder, name)).is_symlink()]
        waiting = sorted(links)


def files_below(start: Path) -> Iterator[str]:
    """Paths of the files below a folder, from there, with / in them; see `walk_linked`.

    A link whose target is gone is among them, so that somebody will miss it.
    """
    for folder, _, files in walk_linked(start):
        below = folder.relative_to(start)
        yield from ((below / name).as_posix() for name in files)


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def _bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _sync(path: Path) -> None:
    """Make the kernel write a file's content, or a folder's entries, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
