"""Copies a run directory to objects while it trains, and back on the machine that goes on.

Objects have the sha256 of their file in their name, and one manifest lists those of the folder.
It is replaced last and in one step, so a reader sees the folder as it was at some push, never a
mixture, whenever the writer was killed. Writers are numbered: once attempt 3 has pushed, attempt 2
is refused, however late it wakes up. Checkpoints are replaced by rename and never written to, so a
set of hard links to them stays as it is; a push works on such links while training goes on.
"""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from datasets.files import file_sha256
from datasets.storage.base import Held, Storage
from orchestrator.storage.file_lock import background_thread
from orchestrator.storage.paths import RunPaths
from orchestrator.storage.run_state import append_event
from trainer.checkpoint_manifest import CHECKPOINTS, STAGES

MANIFEST = "folder.json"
_FORMAT = "ipixmatch folder 1"
_TRIES = 20  # of a scan while files come and go, or of a manifest that others replace

MARKER = ".attempt"  # in the scratch folder: number of the attempt that last worked in it
_LOOK_SECONDS = 0.5
_PUSH_SECONDS = 15.0  # between two pushes that bring no checkpoint
_LINK_TRIES = 100  # of links to checkpoints that are being replaced


class Overtaken(RuntimeError):
    """A newer attempt owns the run; this one must end and publish nothing."""


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


def _is_no_leftover(path: str) -> bool:
    return not path.rpartition("/")[2].startswith(".") and not path.endswith(".tmp")


@dataclass
class Mirror:
    """A folder in a storage, below a prefix such as runs/KEY.

    Attributes:
        storage: where to.
        prefix: of all names.
        attempt: number of this writer; a reader needs none.
        wanted: which paths below the folder are copied.
    """

    storage: Storage
    prefix: str
    attempt: int = 0
    wanted: Callable[[str], bool] = _is_no_leftover
    _known: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # state and sha256

    def push(self, folder: Path) -> int:
        """Make the storage hold the folder as it is now; returns how many files were uploaded.

        Call it from one thread. Objects of files that the folder lacks are removed.

        Raises:
            Overtaken: a newer attempt has pushed; nothing of its folder was changed.
            Unreachable: the server failed for too long; the last push stands.
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
                # Only now: as long as the old manifest stood, readers could ask for them.
                unused = before.objects() - _Folder(files=files).objects()
                self.storage.remove(self._name(name) for name in sorted(unused))
                return count
        raise RuntimeError(f"{folder} or its manifest changed {_TRIES} times during one push.")

    def pull(self, folder: Path) -> bool:
        """Make the folder hold what the storage has; False when nothing was pushed yet.

        Files that are there already are kept; those that the storage does not know are removed.

        Raises:
            Unreachable: the server failed for too long.
        """
        for _ in range(_TRIES):
            held = self._folder()
            if not held.tag:
                return False
            try:
                self._bring(folder, held)
            except FileNotFoundError:  # a push removed it meanwhile
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

    def remove_leftovers(self) -> int:
        """Remove objects that the manifest does not list, left by pushes that were killed.

        No push may run meanwhile: its objects are not listed before its end.
        """
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
        """Upload a file.

        A small one is read once, so that the bytes fit the sha256 even if it grows meanwhile.
        """
        if source.stat().st_size > 32 * 2**20:
            file = _File(file_sha256(source), source.stat().st_size)
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
            digest = file_sha256(folder / path)
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
        files = (path for path in folder.rglob("*") if path.is_file())
        paths = (path.relative_to(folder).as_posix() for path in files)
        return sorted(path for path in paths if self.wanted(path))

    def _name(self, path: str) -> str:
        return f"{self.prefix}/{path}"


class RunUploader:
    """The objects of one attempt's run, and the thread that pushes them.

    Args:
        paths: of the run; its folder is the scratch folder.
        attempt: number of this attempt.
        storage: waits long for the server, where a failure loses work.
        quick_storage: gives up soon, where the next push follows anyway.
    """

    def __init__(
        self, paths: RunPaths, attempt: int, *, storage: Storage, quick_storage: Storage
    ) -> None:
        self._paths = paths
        self._mirror = Mirror(storage, paths.name, attempt, is_synced)
        self._quick_mirror = Mirror(quick_storage, paths.name, attempt, is_synced)
        self._pushed: tuple[str, ...] | None = None
        self.is_overtaken = False

    def push(self) -> None:
        """Make the objects equal to the folder, waiting as long as the server may need.

        Raises:
            Overtaken: a newer attempt has begun.
            Unreachable: the server failed for too long; the last push stands, and so does the
                scratch folder.
        """
        self._push(self._mirror)

    def remove_leftovers(self) -> None:
        """Remove objects of pushes that were killed; no older attempt can push any more."""
        self._mirror.remove_leftovers()

    def pushing(self) -> AbstractContextManager[None]:
        """Push from a thread until the block ends: at once with every checkpoint."""
        return background_thread(self._loop, "pushes")

    def _loop(self, stop: threading.Event) -> None:
        last, was_silent = time.monotonic(), False
        while not stop.wait(_LOOK_SECONDS):
            is_due = time.monotonic() - last > _PUSH_SECONDS
            if not is_due and (was_silent or _committed(self._paths.folder) == self._pushed):
                continue
            try:
                self._push(self._quick_mirror)
            except Overtaken:
                self.is_overtaken = True
                return
            except OSError as error:  # the next push follows; only the last one must succeed
                self._note(was_silent, "store_silent", error=str(error))
                was_silent = True
            else:
                self._note(not was_silent, "store_answers")
                was_silent = False
            last = time.monotonic()

    def _push(self, mirror: Mirror) -> None:
        folder = self._paths.folder
        snapshot = folder.with_name(f".{folder.name}.push")
        try:
            committed = _link_snapshot(folder, snapshot)
            mirror.push(snapshot)
            self._pushed = committed
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)

    def _note(self, is_known: bool, event: str, **facts: str) -> None:
        """Write a line to the run's events, unless the same was written before."""
        if not is_known:
            with suppress(OSError):
                append_event(self._paths, event, **facts)


def is_synced(path: str) -> bool:
    """Whether a path below a run's folder belongs to the run's objects."""
    name = path.rpartition("/")[2]
    return path != "lock" and not name.startswith(".") and not name.endswith(".tmp")


def fetch_run(paths: RunPaths, newest: int, storage: Storage) -> None:
    """Make the scratch folder hold the newest state of the run.

    What the newest attempt left in this folder is kept: it may be ahead of that attempt's last
    push, and never behind.

    Args:
        paths: of a run whose lock we own.
        newest: number of the newest attempt.
        storage: of its root.

    Raises:
        Unreachable: the server failed for too long.
    """
    marker = paths.folder / MARKER
    with suppress(OSError, ValueError):
        if newest and int(marker.read_text()) == newest:
            return
    marker.unlink(missing_ok=True)  # a kill during the pull must not leave a folder that counts
    if not Mirror(storage, paths.name, wanted=is_synced).pull(paths.folder):
        clear_scratch(paths)


def clear_scratch(paths: RunPaths) -> None:
    """Remove a run from the scratch folder; the bucket has all of it."""
    (paths.folder / MARKER).unlink(missing_ok=True)  # first: half a folder must not count
    for path in paths.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path != paths.lock:
            path.unlink()


def mark_attempt(paths: RunPaths, attempt: int) -> None:
    """Mark the scratch folder as that of an attempt from now on."""
    (paths.folder / MARKER).write_text(str(attempt))


def _committed(folder: Path) -> tuple[str, ...]:
    """The complete checkpoints, as a value that changes with any of them."""
    names = []
    for path in sorted((folder / CHECKPOINTS).glob("*.json")):
        with suppress(FileNotFoundError):
            names.append(f"{path.name} {path.stat().st_mtime_ns}")
    return tuple(names)


def _link_snapshot(folder: Path, snapshot: Path) -> tuple[str, ...]:
    """Hard-link the checkpoints of one moment, and copy the other files, which grow.

    Returns:
        The complete checkpoints among them, see `_committed`.
    """
    for _ in range(_LINK_TRIES):
        shutil.rmtree(snapshot, ignore_errors=True)
        before = _checkpoint_files(folder / CHECKPOINTS)
        committed = _committed(folder)
        with suppress(FileNotFoundError):
            for name in before:
                target = snapshot / CHECKPOINTS / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(folder / CHECKPOINTS / name)
            if _checkpoint_files(folder / CHECKPOINTS) == before:
                break
    else:
        raise OSError(f"{folder / CHECKPOINTS} changed {_LINK_TRIES} times while it was looked at.")
    for path in folder.rglob("*"):
        below = path.relative_to(folder)
        if path.is_file() and is_synced(below.as_posix()) and below.parts[0] != CHECKPOINTS:
            with suppress(FileNotFoundError):
                (snapshot / below).parent.mkdir(parents=True, exist_ok=True)
                if below.parts[0] == STAGES:  # thousands of masks, never written to
                    (snapshot / below).hardlink_to(path)
                else:
                    # With its times, by which `Mirror` knows a file that has not changed.
                    shutil.copy2(path, snapshot / below)
    return committed


def _checkpoint_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each checkpoint file by name; a replaced file has others."""
    files = {}
    if folder.is_dir():
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                if is_synced(path.name):
                    files[path.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return files
