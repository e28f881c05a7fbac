"""A root in a bucket.

A run trains in a scratch folder of its machine, and `RunUploader` copies that to the run's objects.
The lock of a run or a grid is an object (`s3_lock`), and machines that do not see the stop file of
a launch look for an object of its name. A look costs a request, so many are made at once or spared.
"""

import atexit
import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from datasets.errors import Unreachable
from datasets.storage.base import Storage
from orchestrator.failures import StaleAttempt
from orchestrator.storage.file_lock import LockOwner, file_lock
from orchestrator.storage.local_root import MOVED, leave_notice
from orchestrator.storage.paths import RunPaths
from orchestrator.storage.result_folders import S3Results
from orchestrator.storage.root import Probe, ResultFolder, ResultKind, Root, RunOwner, StopSignal
from orchestrator.storage.run_state import Progress, RunState, parse_progress, read_progress
from orchestrator.storage.s3_lock import IDLE_BYTES, LockLost, S3Lock, read_lock, s3_lock
from orchestrator.storage.s3_storage import SHORT_PATIENCE, storage_of
from orchestrator.storage.sync import (
    MANIFEST,
    MARKER,
    Mirror,
    Overtaken,
    RunUploader,
    clear_scratch,
    fetch_run,
    is_synced,
    mark_attempt,
)
from orchestrator.trial import Outcome
from trainer.checkpoint_manifest import CHECKPOINTS, Manifest, fingerprint_of
from trainer.run_log import PROGRESS

_THREADS = 16
_PROGRESS_SECONDS = 5.0  # between two looks of a screen at a run elsewhere
_GIB = 2**30


class S3Root(Root):
    """See `Root`.

    Args:
        url: s3://bucket/prefix.
        scratch: folder in which runs train; empty for the default of this machine.
    """

    def __init__(self, url: str, scratch: str = "") -> None:
        self.address = url
        self.scratch = str(Path(scratch).expanduser().absolute()) if scratch else ""
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        base = Path(self.scratch or f"{home}/ipixmatch/scratch").expanduser().absolute()
        # Two servers may have buckets of the same name, whose scratch folders must differ.
        server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        digest = hashlib.sha256(f"{server} {url}".encode()).hexdigest()[:16]
        name = url.removeprefix("s3://")
        self.folder = base / f"{name.partition('/')[0]}-{digest}"
        # A scratch that several machines share must not mix their runs.
        self.runs = self.folder / os.uname().nodename / "runs"
        self.printed = Path("outputs").absolute() / name
        self.look_seconds = 5.0
        self.costs_requests = True
        self._progress: dict[str, tuple[float, Progress | None]] = {}  # when it was looked at

    @classmethod
    def at(cls, address: str, scratch: str = "") -> "S3Root":
        """The root at an address as a user wrote it.

        Raises:
            ValueError: a URL of another kind than s3://bucket/prefix, or with credentials.
        """
        scheme, _, name = address.rstrip("/").partition("://")
        bucket, _, prefix = name.partition("/")
        if "@" in bucket:
            raise ValueError(
                "The root has credentials in its URL, which would end up in logs and results. Give "
                "s3://bucket/prefix and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        if scheme != "s3" or not bucket:
            raise ValueError(
                f"root={address} is no place for runs; give DIR or s3://bucket/prefix."
            )
        return cls(f"s3://{bucket}/{prefix.strip('/')}".rstrip("/"), scratch)

    @property
    def storage(self) -> Storage:
        """Waits long for the server: for attempts, which would lose work if they gave up."""
        return storage_of(self.address)

    @property
    def quick_storage(self) -> Storage:
        """Gives up soon: for questions that can be asked again later."""
        return storage_of(self.address, patience=SHORT_PATIENCE)

    def check(self) -> None:
        """See `Root`."""
        self.quick_storage.entries("grids/knock")

    def probe(self) -> Probe:
        """See `Root`."""
        try:
            self.check()
            began = time.monotonic()
            holds = _conditions_hold(self.quick_storage, f"doctor/{os.urandom(4).hex()}")
            seconds = (time.monotonic() - began) / 6  # requests of `_conditions_hold`
        except (OSError, ValueError) as error:
            advice = "Choose another root, or correct AWS_ENDPOINT_URL and the credentials."
            return Probe("bucket", False, str(error), advice)
        if not holds:
            advice = "Its server ignores If-None-Match or If-Match: two hosts could train one cell."
            return Probe("bucket", False, "locks do not hold", advice)
        free = shutil.disk_usage(_existing(self.folder)).free / _GIB
        text = f"{self.address}: locks hold, {1000 * seconds:.0f} ms a request; scratch"
        return Probe("bucket", True, f"{text} {self.folder}: {free:.0f} GiB free")

    def states(self, keys: Collection[str], done: Collection[str] = ()) -> dict[str, RunState]:
        """See `Root`."""
        storage = self.quick_storage
        sizes = {entry.name: entry.size for entry in storage.entries("runs/")}

        def state(key: str) -> RunState:
            name, owner, attempt, newest = self.run(key).name, None, 0, None
            size = sizes.get(f"{name}/lock", 0)
            # The listing gives sizes: a lock without an owner is known without a request.
            if size > IDLE_BYTES or (size and key not in done):
                record, owner = read_lock(storage, f"{name}/lock")
                attempt = record.attempt
            if f"{name}/{MANIFEST}" in sizes and key not in done:
                newest = _newest_pushed(storage, name)
            return RunState(owner, attempt, newest)

        with ThreadPoolExecutor(_THREADS) as pool:
            return dict(zip(keys, pool.map(state, keys), strict=True))

    def progress(
        self, keys: Iterable[str], done: Collection[str] = ()
    ) -> dict[str, Progress | None]:
        """See `Root`."""
        wanted = [key for key in keys if key not in done]
        with ThreadPoolExecutor(_THREADS) as pool:
            return dict(zip(wanted, pool.map(self._pushed_progress, wanted), strict=True))

    def cached_progress(self, key: str) -> Progress | None:
        """See `Root`."""
        paths = self.run(key)
        if (paths.folder / MARKER).exists():
            return read_progress(paths)
        when, progress = self._progress.get(key, (-_PROGRESS_SECONDS, None))
        if time.monotonic() - when > _PROGRESS_SECONDS:
            with suppress(OSError):
                progress = self._pushed_progress(key)
            self._progress[key] = (time.monotonic(), progress)
        return progress

    def lock_owner(self, key: str) -> LockOwner | None:
        """See `Root`."""
        return read_lock(self.quick_storage, f"{self.run(key).name}/lock")[1]

    def newest_attempt(self, key: str) -> int:
        """See `Root`."""
        return read_lock(self.quick_storage, f"{self.run(key).name}/lock")[0].attempt

    def local_copy(self, key: str, *, also: Collection[str] = ()) -> RunPaths:
        """See `Root`."""
        paths, newest = self.run(key), self.newest_attempt(key)
        with suppress(OSError, ValueError):
            if newest and int((paths.folder / MARKER).read_text()) == newest:
                return paths  # it runs, or ran last, on this machine
        copy = RunPaths(_copies() / self.folder.name / key)
        copy.folder.mkdir(parents=True, exist_ok=True)
        if newest:
            copy.attempt(newest).mkdir(parents=True, exist_ok=True)

        def is_wanted(path: str) -> bool:
            return not path.endswith((".pt", ".png")) or path in also  # weights, masks of stages

        Mirror(self.quick_storage, paths.name, wanted=is_wanted).pull(copy.folder)
        return copy

    def folder_of_rank(self, key: str, attempt: int, rank: int) -> Path:
        """See `Root`."""
        paths = self.run(key)
        with suppress(OSError, ValueError):
            if int((paths.folder / MARKER).read_text()) == attempt:
                return paths.folder
        own = paths.folder.with_name(f"{key}.rank{rank:04d}")
        Mirror(self.storage, paths.name, wanted=is_synced).pull(own)
        return own

    @contextmanager
    def own_run(
        self, key: str, what: str, *, wait_seconds: float, stop_file: str = ""
    ) -> Iterator[RunOwner]:
        """See `Root`."""
        paths = self.run(key)
        stop = _StopLookout(self.quick_storage, _stop_object(stop_file) if stop_file else "")
        with (
            file_lock(paths.lock, what, wait_seconds=wait_seconds),
            s3_lock(
                self.address,
                f"{paths.name}/lock",
                what,
                wait_seconds=wait_seconds,
                on_heartbeat=stop.look,
            ) as lock,
        ):
            yield S3RunOwner(self, paths, lock, stop)

    @contextmanager
    def own_grid(self, name: str, what: str) -> Iterator[Callable[[], bool]]:
        """See `Root`."""
        paths = self.grid(name)
        with file_lock(paths.lock, what), s3_lock(self.address, f"{paths.name}/lock", what) as lock:
            yield lambda: lock.is_lost

    def archive_run(self, key: str, fingerprint: str | None, *, published_attempt: int) -> str:
        """See `Root`; objects cannot be renamed, so they are copied."""
        paths, storage, what = self.run(key), self.storage, "setting the run aside"
        prefix = paths.name
        with (
            file_lock(paths.lock, what),
            s3_lock(self.address, f"{prefix}/lock", what) as lock,
        ):
            pushed = Mirror(storage, prefix).newest_attempt()
            attempt = max(lock.attempt, pushed, published_attempt)
            old = fingerprint_of(self.local_copy(key).folder) or fingerprint or "unknown"
            target = _free(storage, f"{prefix}~{old[:8]}")
            names = [entry.name.removeprefix(prefix) for entry in storage.entries(f"{prefix}/")]
            # The manifest last: a copy that was cut short then has none, and is no run.
            for name in sorted(set(names) - {"/lock"}, key=lambda name: name == f"/{MANIFEST}"):
                storage.copy(prefix + name, target + name)
            lock.describe(what, attempt=attempt)
            with tempfile.TemporaryDirectory(prefix="ipixmatch-aside-") as folder:
                leave_notice(RunPaths(Path(folder)), attempt, f"{self.address}/{target}")
                Mirror(storage, prefix, attempt).push(Path(folder))
            clear_scratch(paths)
        return f"{self.address}/{target}"

    def places(self, key: str) -> dict[int, str]:
        """See `Root`."""
        wanted = re.compile(rf"(runs/{re.escape(key)}(?:~[^/]*)?)/files/attempts/(\d+)/(.+)")
        places: dict[int, str] = {}
        for entry in self.quick_storage.entries(f"{self.run(key).name}"):
            match = wanted.fullmatch(entry.name)
            if match and not match[3].startswith(MOVED):
                places[int(match[2])] = match[1]
        return places

    def results(self, kind: ResultKind) -> ResultFolder:
        """See `Root`."""
        return S3Results(self.storage, f"results/{kind}")

    def upload(self, paths: Sequence[Path]) -> list[str]:
        """See `Root`."""
        storage, urls = self.storage, []
        files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
        for file in files:
            if file.is_file():
                name = file.relative_to(self.printed).as_posix()
                storage.upload(file, name)
                urls.append(f"{self.address}/{name}")
        return urls

    def stop_signal(self, stop_file: Path) -> StopSignal:
        """See `Root`."""
        return _StopObject(self.quick_storage, _stop_object(str(stop_file)))

    def log_hint(self, key: str, attempt: int) -> str:
        """See `Root`."""
        return f"python -m orchestrator logs {key} {shlex.quote(f'root={self.address}')}"

    def _pushed_progress(self, key: str) -> Progress | None:
        with suppress(FileNotFoundError, ValueError):
            pushed = Mirror(self.quick_storage, self.run(key).name)
            return parse_progress(pushed.read(PROGRESS))
        return None


@dataclass
class _StopLookout:
    """Looks at every heartbeat for the object that asks the launch to stop.

    Attributes:
        name: of the object; empty without a launch.
    """

    storage: Storage
    name: str
    is_asked: bool = False

    def look(self) -> None:
        entries = self.storage.entries(self.name) if self.name else []
        if any(entry.name == self.name for entry in entries):
            self.is_asked = True


@dataclass
class S3RunOwner:
    """The owner of a run in a bucket, by the lock object; it works in a scratch folder."""

    root: S3Root
    paths: RunPaths
    lock: S3Lock
    stop: _StopLookout
    number: int = 0
    _uploader: RunUploader | None = field(default=None)

    @property
    def newest(self) -> int:
        """See `RunOwner`."""
        return self.lock.attempt

    def begin(self, published: int) -> int:
        """See `RunOwner`."""
        storage = self.root.storage
        fetch_run(self.paths, self.newest, storage)
        pushed = Mirror(storage, self.paths.name).newest_attempt()
        self.number = max(self.newest, pushed, published) + 1
        # In the lock first: were only the scratch folder marked, another host could take the number
        # after a kill, and this folder would later pass for the work of that attempt.
        with _as_stale():
            self.lock.describe(f"attempt {self.number}", attempt=self.number)
        mark_attempt(self.paths, self.number)
        self._uploader = RunUploader(
            self.paths, self.number, storage=storage, quick_storage=self.root.quick_storage
        )
        return self.number

    def start(self) -> None:
        """See `RunOwner`."""
        assert self._uploader is not None
        with _as_stale():
            self._uploader.push()
        self._uploader.remove_leftovers()

    def training(self) -> AbstractContextManager[None]:
        """See `RunOwner`."""
        assert self._uploader is not None
        return self._uploader.pushing()

    def must_end(self) -> bool:
        """See `RunOwner`."""
        is_overtaken = self._uploader is not None and self._uploader.is_overtaken
        return self.lock.is_lost or is_overtaken or self.stop.is_asked

    def save(self) -> None:
        """See `RunOwner`."""
        assert self._uploader is not None
        with _as_stale():
            self._uploader.push()
            self.lock.heartbeat()

    def end(self, outcome: Outcome) -> None:
        """See `RunOwner`."""
        assert self._uploader is not None
        with suppress(OSError, Overtaken):
            self._uploader.push()
            if outcome.status == "done":
                clear_scratch(self.paths)

    def release(self) -> None:
        """See `RunOwner`."""
        with suppress(OSError):
            self.lock.release()


class _StopObject:
    """The stop file of a launch as an object, for workers that do not see the file."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name
        self._thread: threading.Thread | None = None

    def send(self) -> None:
        """See `StopSignal`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._put, name="stop object", daemon=True)
            self._thread.start()

    def withdraw(self) -> None:
        """See `StopSignal`."""
        if self._thread is not None:
            self._thread.join()
            with suppress(Unreachable):
                self._storage.remove([self._name])

    def _put(self) -> None:
        with suppress(OSError):  # workers of this host see the file
            self._storage.write(self._name, b"")


def _stop_object(stop_file: str) -> str:
    """Name of a launch's stop object, from the path of its stop file on any machine."""
    return f"grids/{stop_file.rpartition('/grids/')[2]}"


@contextmanager
def _as_stale() -> Iterator[None]:
    """Turn both signs of a newer attempt, a lost lock and a refused push, into `StaleAttempt`."""
    try:
        yield
    except (Overtaken, LockLost) as error:
        raise StaleAttempt(str(error)) from error


def _newest_pushed(storage: Storage, name: str) -> Manifest | None:
    """The commit record of the newest checkpoint among a run's objects."""
    mirror = Mirror(storage, name)
    steps = [path for path in mirror.paths() if path.startswith(f"{CHECKPOINTS}/step-")]
    records = sorted(path for path in steps if path.endswith(".json"))
    with suppress(FileNotFoundError, ValueError, TypeError):
        return Manifest(**json.loads(mirror.read(records[-1]))) if records else None
    return None


def _conditions_hold(storage: Storage, name: str) -> bool:
    """Whether the server lets exactly one of two writers win, as all locks need."""
    is_exclusive = storage.create(name, b"1") and not storage.create(name, b"2")
    tag = storage.hold(name).tag
    is_exact = storage.replace(name, b"3", tag) and not storage.replace(name, b"4", tag)
    storage.remove([name])
    return is_exclusive and is_exact


def _free(storage: Storage, name: str) -> str:
    """The name, or with a number appended the first one without objects."""
    number, candidate = 2, name
    while storage.entries(candidate):
        candidate = f"{name}.{number}"
        number += 1
    return candidate


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return path if path.exists() else _existing(path.parent)


@cache
def _copies() -> Path:
    """A folder of this process for copies of runs."""
    folder = Path(tempfile.mkdtemp(prefix="ipixmatch-view-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
