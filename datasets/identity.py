"""Which data a run reads: the sha256 of every file, and one fingerprint of them all.

The fingerprint follows the bytes. Sizes and times only say cheaply that a file is as it was when it
was hashed; what they say is kept in a file beside the data, or in the user's cache where that
cannot be written. What each fingerprint stood for is kept in both, so that a result of other data
can be explained file by file, even if the folder was made anew.
"""

import gzip
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from datasets.config import DataConfig
from datasets.errors import DataError
from datasets.files import atomic_write, file_sha256
from datasets.known.folder import DESCRIPTION_FILE
from datasets.location import DatasetLocation, locate
from datasets.manifest import data_fingerprint, read_manifest
from datasets.splits.lists import Split, load_split, present_splits
from datasets.wording import quantity

RECORDS = ".identity"  # beside the data
_HASHES = "hashes.json"
_PACKED = "packed.json"  # PACKED_FILE of datasets.shards.reader, which loads Pillow
_THREADS = 8
_SETTLED_SECONDS = 2.0  # coarsest time stamp of a file system: a younger file may change unseen
_NAMED = 3  # files that a text names
# By root what this process hashed: where neither the data nor the user's cache can be written, a
# run would hash all of it anew at each checkpoint.
_hashed_here: dict[Path, dict[str, tuple[tuple[int, int, int], str]]] = {}


@dataclass(frozen=True)
class DataIdentity:
    """The data that a run on one split reads.

    Attributes:
        fingerprint: one sha256 over all files.
        files: sha256 by path below the root; that of dataset.yaml is of what it says about masks.
        split: the lists.
        folders: where is kept what fingerprints stood for.
    """

    fingerprint: str
    files: Mapping[str, str]
    split: Split
    folders: tuple[Path, ...]

    def remember(self) -> None:
        """Keep what the fingerprint and the checksum of the lists stand for."""
        lists = (self.split.labelled, self.split.unlabelled, self.split.validation)
        for name, content in ((self.fingerprint, self.files), (self.split.checksum, lists)):
            path = f"{name}.json.gz"
            missing = [folder for folder in self.folders if not (folder / path).is_file()]
            packed = gzip.compress(json.dumps(content).encode(), mtime=0) if missing else b""
            for folder in missing:
                _write([folder], path, packed)

    def changes_since(self, fingerprint: str, checksum: str) -> list[str]:
        """How the data differ from those of an earlier run; empty where they do not.

        Args:
            fingerprint: of its data; empty where it is not known.
            checksum: of its lists; empty where it is not known.
        """
        changed = []
        if fingerprint and fingerprint != self.fingerprint:
            names = f"({fingerprint[:8]} -> {self.fingerprint[:8]})"
            what = _changed_files(self._recall(fingerprint), self.files)
            changed.append(f"data.root: other images or masks {names}{what}")
        if checksum and checksum != self.split.checksum:
            names = f"({checksum[:8]} -> {self.split.checksum[:8]})"
            what = _changed_lists(self._recall(checksum), self.split)
            changed.append(f"data.split: other lists {names}{what}")
        return changed

    def changed_files(self, root: Path) -> list[str]:
        """Paths of the files below the root that are others than these; those that are gone not."""
        paths = [path for path in self.files if path != DESCRIPTION_FILE]
        now = _file_hashes(root, paths, _places_of_hashes(root, self.folders))
        return [path for path in paths if now.get(path, self.files[path]) != self.files[path]]

    def _recall(self, name: str) -> Any:
        """What a fingerprint or checksum stood for; None where that was not kept."""
        for folder in self.folders:
            with suppress(OSError, ValueError, EOFError):
                return json.loads(gzip.decompress((folder / f"{name}.json.gz").read_bytes()))
        return None


class KnownFiles:
    """The sha256 of files below one root, each looked at once; several splits may share it."""

    def __init__(self, location: DatasetLocation) -> None:
        self._root = location.root
        self.folders = (location.root / RECORDS, location.cache / "identity")
        self._hashes: dict[str, str] = {}
        self._packed = _packed_hashes(location)

    @property
    def is_packed(self) -> bool:
        """Whether the files are items of shards, each of which is checked when it is read."""
        return self._packed is not None

    def hashes(self, paths: Iterable[str]) -> dict[str, str]:
        """By path; without files that are gone, and without items that are no whole files."""
        wanted = list(paths)
        if self._packed is not None:
            return {path: self._packed[path] for path in wanted if path in self._packed}
        new = [path for path in wanted if path not in self._hashes]
        if new:
            places = _places_of_hashes(self._root, self.folders)
            self._hashes |= _file_hashes(self._root, new, places)
        return {path: self._hashes[path] for path in wanted if path in self._hashes}


def identity_of(config: DataConfig, known: KnownFiles | None = None) -> DataIdentity:
    """The identity of the configured data, without decoding an image; `known` as below.

    Raises:
        ValueError, DataError, OSError: there is no such data or split here.
    """
    location = locate(config)
    return identity_at(location, load_split(location, config.split), known)


def identity_at(
    location: DatasetLocation, split: Split, known: KnownFiles | None = None
) -> DataIdentity:
    """The identity of the data at a location.

    Of a folder of one's own these are the files of the split and the meaning of its masks. Of other
    data sets they are the files of the manifest, whatever the split; without a manifest those of
    all lists, as `datasets verify` would write them into one.

    Args:
        location: of the data.
        split: its lists.
        known: files of this root that were looked at before.

    Raises:
        DataError: no drawn scenes are there, or a shard's index is broken.
        OSError: a file cannot be read.
    """
    spec, root = location.spec, location.root
    manifest = read_manifest(root)
    if manifest is None and location.drawing is not None:
        raise DataError(f"{root} holds no drawn scenes.")
    recorded = manifest.files if manifest is not None else {}
    paths = dict.fromkeys(_files_of(location, split))
    if spec.kind != "described":
        others = recorded or _files_of_all_lists(location)
        paths = {**dict.fromkeys(others), **paths}
    known = known or KnownFiles(location)
    files = known.hashes(paths)
    if known.is_packed or spec.kind != "described":
        # Decoded pixels in shards, and files that are gone and that no list needs.
        files = {path: recorded[path] for path in paths if path in recorded} | files
    if spec.kind == "described":
        meaning = f"classes {spec.mask_values} ignored {spec.ignored_value}"
        files[DESCRIPTION_FILE] = _text_sha256(meaning)
    return DataIdentity(data_fingerprint(files), files, split, known.folders)


def known_sha256(path: Path, cache: Path) -> str | None:
    """sha256 of any file, read only where it may have changed; None when it is gone.

    Args:
        path: of the file.
        cache: folder of the user's, in which is kept what was read.
    """
    folder = path.parent.resolve()
    kept = cache / "identity" / _text_sha256(str(folder))[:16]
    return _file_hashes(folder, [path.name], [kept]).get(path.name)


def _files_of(location: DatasetLocation, split: Split) -> list[str]:
    """Paths below the root that a run on a split reads."""
    spec, masked = location.spec, [*split.labelled, *split.validation]
    images = [spec.image_file(name) for name in (*masked, *split.unlabelled)]
    return [*images, *(spec.mask_file(name) for name in masked)]


def _files_of_all_lists(location: DatasetLocation) -> list[str]:
    """Paths of all images of all lists at the root, and of those of their masks that are there."""
    names: dict[str, None] = {}
    for present in present_splits(location):
        split = load_split(location, present)
        names |= dict.fromkeys((*split.labelled, *split.unlabelled, *split.validation))
    spec = location.spec
    return [path for name in names for path in (spec.image_file(name), spec.mask_file(name))]


def _packed_hashes(location: DatasetLocation) -> dict[str, str] | None:
    """Hashes of the files in shards, each of which is checked when it is read; None without shards.

    Shards of decoded pixels have none: what their files were stands in the manifest.
    """
    if not (location.root / _PACKED).is_file():
        return None
    from datasets.shards.reader import packed_hashes

    spec = location.spec
    return {
        spec.image_file(name) if kind == "image" else spec.mask_file(name): digest
        for (kind, name), digest in packed_hashes(location.root).items()
    }


def _places_of_hashes(root: Path, folders: Sequence[Path]) -> tuple[Path, Path]:
    """Where the sha256 of a root's files are kept; the user's cache has a folder for each root."""
    beside, of_user = folders
    return beside, of_user / _text_sha256(str(root.resolve()))[:16]


def _file_hashes(root: Path, paths: Sequence[str], folders: Sequence[Path]) -> dict[str, str]:
    """sha256 of the files that are there, by path; only those are read that may have changed."""
    known = _known_hashes(folders) | _hashed_here.get(root, {})
    with ThreadPoolExecutor(_THREADS) as pool:
        states = dict(zip(paths, pool.map(lambda path: _state(root / path), paths), strict=True))
        there = {path: state for path, state in states.items() if state is not None}
        hashes = {p: known[p][1] for p, state in there.items() if known.get(p, ((),))[0] == state}
        stale = [path for path in there if path not in hashes]
        now = time.time_ns()
        hashes |= zip(stale, pool.map(lambda path: file_sha256(root / path), stale), strict=True)
    settled = [p for p in stale if now - max(there[p][1:]) > _SETTLED_SECONDS * 1e9]
    if settled:
        known |= {path: (there[path], hashes[path]) for path in settled}
        _hashed_here[root] = known
        content = {path: [*state, digest] for path, (state, digest) in known.items()}
        _write(folders, _HASHES, json.dumps(content).encode())
    return hashes


def _state(path: Path) -> tuple[int, int, int] | None:
    """Size, time of change of the content and of the file's record; None when it is gone."""
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    # st_ctime cannot be set: it moves when a copying program restores the time of the content.
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _known_hashes(folders: Iterable[Path]) -> dict[str, tuple[tuple[int, int, int], str]]:
    """State and sha256 of files when they were last hashed; a broken record counts as none."""
    known: dict[str, tuple[tuple[int, int, int], str]] = {}
    for folder in folders:
        with suppress(OSError, ValueError, TypeError, AttributeError):
            content = json.loads((folder / _HASHES).read_bytes())
            known |= {p: ((size, m, c), digest) for p, (size, m, c, digest) in content.items()}
    return known


def _write(folders: Iterable[Path], name: str, content: bytes) -> None:
    """Write a file into the first folder that can be written; where none can, it is not kept."""
    for folder in folders:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            atomic_write(folder / name, content)
            return


def _text_sha256(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _changed_files(before: Any, now: Mapping[str, str]) -> str:
    """Which files differ, for the end of a sentence; empty where it is not known any more."""
    if not isinstance(before, dict):
        return ""
    kinds = {
        "changed": sorted(path for path in now if path in before and before[path] != now[path]),
        "new": sorted(set(now) - set(before)),
        "gone": sorted(set(before) - set(now)),
    }
    counts = ", ".join(f"{len(paths)} {kind}" for kind, paths in kinds.items() if paths)
    first = [path for paths in kinds.values() for path in paths][:_NAMED]
    return f": {counts} of {quantity(len(now), 'file')}, such as {', '.join(first)}"


def _changed_lists(before: Any, split: Split) -> str:
    """How long the lists were and are, for the end of a sentence; empty where it is not known."""
    if not isinstance(before, list) or len(before) != 3:
        return ""
    lists = {
        "labelled": (before[0], split.labelled),
        "unlabelled": (before[1], split.unlabelled),
        "validation": (before[2], split.validation),
    }
    texts = [
        f"{name} {len(old)} -> {len(new)} ({_others(set(old) ^ set(new))})"
        for name, (old, new) in lists.items()
        if tuple(old) != tuple(new)
    ]
    return f": {', '.join(texts)}"


def _others(ids: set[str]) -> str:
    """How many ids stand in one of two lists alone."""
    return f"{len(ids)} others" if ids else "in another order"
