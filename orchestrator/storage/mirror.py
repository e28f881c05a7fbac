"""A run's folder kept in a storage: pushed while it runs, pulled by whoever goes on.

Files lie under names that carry their sha256, and one manifest says which of them make the folder.
It is replaced last and in one step, so a reader sees the folder as it was at some push, never a
mixture, whenever the writer was killed. Writers are numbered: once attempt 3 has pushed, attempt 2
is refused, however late it wakes up.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from datasets.storage.base import Held, Storage

MANIFEST = "folder.json"
_FORMAT = "ipixmatch folder 1"
_TRIES = 20  # of a scan while files come and go, or of a manifest that others replace


class Overtaken(RuntimeError):
    """A newer attempt owns the folder; this one must end without a trace."""


@dataclass(frozen=True)
class _File:
    """A file of the folder: its bytes by sha256, and the object that holds them."""

    sha256: str
    size: int

    def object_of(self, path: str) -> str:
        return f"files/{path}.{self.sha256[:16]}"


@dataclass(frozen=True)
class _Folder:
    """What a manifest says; `tag` is that of the object it was read from, empty without one."""

    attempt: int = 0
    files: dict[str, _File] = field(default_factory=dict)
    tag: str = ""

    def objects(self) -> set[str]:
        return {file.object_of(path) for path, file in self.files.items()}


def _anything(path: str) -> bool:
    return not path.rpartition("/")[2].startswith(".") and not path.endswith(".tmp")


@dataclass
class Mirror:
    """A folder in a storage, below a prefix such as runs/KEY.

    Attributes:
        storage: where to.
        prefix: of all names.
        attempt: number of this writer; a reader needs none.
        wanted: which paths below the folder travel.
    """

    storage: Storage
    prefix: str
    attempt: int = 0
    wanted: Callable[[str], bool] = _anything
    _known: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # state and sha256

    def push(self, folder: Path) -> int:
        """Make the storage hold the folder as it is now; how many files went up.

        Call it from one thread. What the folder lacks is forgotten there, too.

        Raises:
            Overtaken: a newer attempt has pushed; nothing of its folder was changed.
            Unreachable: the store failed for longer than its patience; the last push stands.
        """
        for _ in range(_TRIES):
            before = self._folder()
            if before.attempt > self.attempt:
                raise Overtaken(
                    f"{self.storage.url}/{self.prefix} belongs to attempt {before.attempt}; "
                    f"attempt {self.attempt} ends without publishing anything."
                )
            sent = self._send(folder, before)
            if sent is None:
                continue
            files, count = sent
            if (before.attempt, before.files) == (self.attempt, files) and before.tag:
                return 0
            if self._commit(files, before.tag):
                unused = before.objects() - _Folder(files=files).objects()
                self.storage.remove(self._name(name) for name in sorted(unused))
                return count
        raise RuntimeError(f"{folder} or its manifest changed {_TRIES} times during one push.")

    def pull(self, folder: Path) -> bool:
        """Make the folder hold what the storage has; False when nothing was pushed yet.

        Files that are there already are kept; those that the storage does not know are removed.

        Raises:
            Unreachable: the store failed for longer than its patience.
        """
        for _ in range(_TRIES):
            held = self._folder()
            if not held.tag:
                return False
            try:
                self._bring(folder, held)
            except FileNotFoundError:  # somebody pushed meanwhile
                continue
            for path in self._paths(folder):
                if path not in held.files:
                    (folder / path).unlink(missing_ok=True)
            return True
        raise RuntimeError(f"{self.storage.url}/{self.prefix} changed {_TRIES} times in one pull.")

    def newest_attempt(self) -> int:
        """Number of the newest attempt that pushed; 0 without one."""
        return self._folder().attempt

    def paths(self) -> list[str]:
        """The files as of the last push; none before the first."""
        return sorted(self._folder().files)

    def read(self, path: str) -> bytes:
        """One file as of the last push.

        Raises:
            FileNotFoundError: it was not pushed.
        """
        file = self._folder().files.get(path)
        if file is None:
            raise FileNotFoundError(2, "Not pushed", f"{self.storage.url}/{self.prefix}/{path}")
        return self.storage.read(self._name(file.object_of(path)))

    def sweep(self) -> int:
        """Remove what pushes that were killed left behind; the owner calls it before its first."""
        kept = {self._name(name) for name in (*self._folder().objects(), MANIFEST)}
        stray = [
            entry.name
            for entry in self.storage.entries(self._name("files/"))
            if entry.name not in kept
        ]
        self.storage.remove(stray)
        return len(stray)

    def _send(self, folder: Path, before: _Folder) -> tuple[dict[str, _File], int] | None:
        """Files of the folder, all of them in the storage; None when one vanished meanwhile."""
        there, files, count = before.objects(), {}, 0
        for path in self._paths(folder):
            try:
                file = self._state(folder, path)
                if file.object_of(path) not in there:
                    count += 1
                    file = self._upload(folder / path, path)
            except FileNotFoundError:
                return None
            files[path] = file
        return files, count

    def _upload(self, source: Path, path: str) -> _File:
        """Small files are read once, so that one that grows is whole as of that moment."""
        if source.stat().st_size > 32 * 2**20:
            with source.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            file = _File(digest, source.stat().st_size)
            self.storage.upload(source, self._name(file.object_of(path)))
            return file
        content = source.read_bytes()
        file = _File(hashlib.sha256(content).hexdigest(), len(content))
        self.storage.write(self._name(file.object_of(path)), content)
        return file

    def _state(self, folder: Path, path: str) -> _File:
        """A file's sha256, read again only when its size or time has changed."""
        state = (folder / path).stat()
        known = self._known.get(path)
        if known is None or known[:2] != (state.st_size, state.st_mtime_ns):
            with (folder / path).open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            known = self._known[path] = (state.st_size, state.st_mtime_ns, digest)
        return _File(known[2], known[0])

    def _commit(self, files: dict[str, _File], tag: str) -> bool:
        content = {
            "format": _FORMAT,
            "attempt": self.attempt,
            "files": {path: [file.sha256, file.size] for path, file in sorted(files.items())},
        }
        data = (json.dumps(content, indent=1) + "\n").encode()
        if tag:
            return self.storage.replace(self._name(MANIFEST), data, tag)
        return self.storage.create(self._name(MANIFEST), data)

    def _folder(self) -> _Folder:
        try:
            held: Held = self.storage.hold(self._name(MANIFEST))
        except FileNotFoundError:
            return _Folder()
        content = json.loads(held.content)
        if content["format"] != _FORMAT:
            raise ValueError(
                f"{self.storage.url}/{self._name(MANIFEST)} is of format {content['format']!r}, "
                "not of this version's. Choose another root."
            )
        files = {path: _File(*file) for path, file in content["files"].items()}
        return _Folder(content["attempt"], files, held.tag)

    def _bring(self, folder: Path, held: _Folder) -> None:
        for path, file in held.files.items():
            if not self.wanted(path):
                continue
            target = folder / path
            if target.is_file() and self._state(folder, path) == file:
                continue
            self.storage.download(self._name(file.object_of(path)), target)

    def _paths(self, folder: Path) -> list[str]:
        found = (path for path in folder.rglob("*") if path.is_file())
        paths = (path.relative_to(folder).as_posix() for path in found)
        return sorted(path for path in paths if self.wanted(path))

    def _name(self, path: str) -> str:
        return f"{self.prefix}/{path}"
