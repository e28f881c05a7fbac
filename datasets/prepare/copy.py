"""Carrying out an assembly: every file is read, checked and written once; it can be resumed.

A journal at the root has one line per finished pair, written after its files. Files appear by
rename, so a kill leaves whole files, at worst without their line; such files are compared again. An
existing file that differs is never overwritten.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from PIL import Image

from datasets.errors import DataError
from datasets.files import atomic_path
from datasets.images.decode import indexed_png, plain_code, read_image, read_mask
from datasets.images.tree import ImageTree, file_bytes, tree_of
from datasets.known.assembly import Assembly, ImageMaskPair
from datasets.manifest import Manifest, read_manifest, write_manifest
from datasets.prepare.defects import Defect, defect_of
from datasets.progress import Progress, Say
from datasets.spec import DatasetSpec

JOURNAL = ".prepare.jsonl"
How = Literal["copy", "link", "symlink"]
HOW: tuple[How, ...] = ("copy", "link", "symlink")
_THREADS = 8
_OURS = {JOURNAL, "manifest.json", "splits", ".unpacked"}  # may lie at a root before the first run

Placed = dict[str, tuple[str, int]]  # sha256 and size by path below the root


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        num_brought: pairs brought just now.
        num_found: pairs that earlier runs had brought.
        defects: pairs that were not brought, and why.
    """

    num_brought: int
    num_found: int
    defects: list[Defect]


def copy_into_place(
    assembly: Assembly, spec: DatasetSpec, root: Path, *, how: How, say: Say
) -> Outcome:
    """Copy or link the files of an assembly to a root; after a kill, a second call continues.

    Args:
        assembly: what to bring.
        spec: of the dataset.
        root: folder of the tree.
        how: whether a file that needs no change is copied, or linked.
        say: given a line of progress every two seconds.

    Returns:
        What was done. A tree without defects has its manifest afterwards.

    Raises:
        DataError: the root holds something else, or another process works on it.
        OSError: the disk refused a file.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _opened_journal(root) as journal:
        work = _Work(tree_of(spec, root), spec, how, _journalled(root))
        progress = Progress(len(assembly.pairs), f"prepare {spec.name}", say)
        files: Placed = {}
        defects, num_brought = list[Defect](), 0
        for pair, result in zip(assembly.pairs, _results(work, assembly.pairs), strict=True):
            progress.step()
            if isinstance(result, Defect):
                defects.append(result)
                continue
            files.update(result)
            if work.done.get(pair.name) != result:
                num_brought += 1
                journal.write(json.dumps({"id": pair.name, "files": result}) + "\n")
                journal.flush()
        for path, ids in assembly.lists.items():
            _put_list(root / path, "".join(f"{name}\n" for name in ids).encode())
        if not defects:
            _record(root, spec, files)
    return Outcome(num_brought, len(assembly.pairs) - num_brought - len(defects), defects)


@dataclass(frozen=True)
class _Work:
    """Brings pairs into a tree; `done` is what earlier runs brought, by id."""

    tree: ImageTree
    spec: DatasetSpec
    how: How
    done: dict[str, Placed]

    def bring(self, pair: ImageMaskPair) -> Placed:
        """One pair, checked before it is written."""
        if pair.name in self.done and _still_there(self.tree.root, self.done[pair.name]):
            return self.done[pair.name]
        image, mask = file_bytes(pair.image, "image"), file_bytes(pair.mask, "mask")
        if pair.convert is not None:
            classes = Image.fromarray(pair.convert(mask, str(pair.mask)))
            mask = indexed_png(classes, self.spec)
        size = read_image(image, str(pair.image)).size
        shape = read_mask(mask, str(pair.mask), plain_code(self.tree.num_classes)).size
        if size != shape:
            raise DataError(
                f"{pair.mask} is {shape[0]}x{shape[1]} pixels, its image {pair.image} is "
                f"{size[0]}x{size[1]}. Bring a fresh copy of the one that is wrong."
            )
        files = (
            (self.tree.image_path(pair.name), image, pair.image),
            (self.tree.mask_path(pair.name), mask, pair.mask if pair.convert is None else None),
        )
        placed = {}
        for target, data, source in files:
            _put(target, data, source, self.how)
            path = target.relative_to(self.tree.root).as_posix()
            placed[path] = (hashlib.sha256(data).hexdigest(), len(data))
        return placed


def _results(work: _Work, pairs: Sequence[ImageMaskPair]) -> Iterator[Placed | Defect]:
    """What was placed, or why not, in the order of the pairs."""

    def attempt(pair: ImageMaskPair) -> Placed | Defect:
        try:
            return work.bring(pair)
        except DataError as error:
            places = (work.tree.image_path(pair.name), work.tree.mask_path(pair.name))
            return defect_of(str(error), pair.name, pair.image, pair.mask, *places)

    # Pillow works without the interpreter's lock, so threads are enough.
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        try:
            yield from pool.map(attempt, pairs)
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _opened_journal(root: Path) -> Iterator[IO[str]]:
    """The journal, for this process alone."""
    path = root / JOURNAL
    if not path.exists():
        foreign = sorted(entry.name for entry in root.iterdir() if entry.name not in _OURS)
        if foreign:
            raise DataError(
                f"{root} holds files that `prepare` did not bring ({', '.join(foreign[:3])}); they "
                "stay as they are. Give an empty folder with root=DIR. (A tree that is complete "
                "already needs no sources: python -m datasets verify.)"
            )
    with path.open("a", encoding="utf-8") as journal:
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"Another process prepares {root} just now. Wait for it, or stop it."
            ) from None
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            journal.write("\n")  # the last line was cut short by a kill
        yield journal


def _journalled(root: Path) -> dict[str, Placed]:
    """What earlier runs brought; a line that a kill cut short counts as missing."""
    done = {}
    for line in (root / JOURNAL).read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            done[entry["id"]] = {path: (sha, size) for path, (sha, size) in entry["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return done


def _still_there(root: Path, placed: Placed) -> bool:
    try:
        return all((root / path).stat().st_size == size for path, (_, size) in placed.items())
    except OSError:
        return False


def _put(target: Path, data: bytes, source: Path | None = None, how: How = "copy") -> None:
    """Write or link a file in one step, unless it is there."""
    if target.exists() or target.is_symlink():
        if target.is_file() and target.read_bytes() == data:
            return
        raise DataError(
            f"{target} is there already and differs from what would be brought; it stays as it is. "
            "Remove it to have it brought again, or choose another root."
        )
    if source is None or how == "copy":
        _write(target, data)
        return
    with atomic_path(target, part=_part(target)) as part:
        if how == "link":
            _link(source, part)
        else:
            part.symlink_to(source.resolve())


def _put_list(target: Path, data: bytes) -> None:
    """A list is made anew when the sources have changed."""
    if not target.is_file() or target.read_bytes() != data:
        _write(target, data)


def _write(target: Path, data: bytes) -> None:
    with atomic_path(target, part=_part(target)) as part:
        part.write_bytes(data)


def _part(target: Path) -> Path:
    """Where a file grows before it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)  # of a run that was killed; the lock is ours
    return part


def _link(source: Path, part: Path) -> None:
    try:
        part.hardlink_to(source.resolve())
    except OSError as error:
        raise OSError(
            error.errno,
            f"{source} cannot be linked to {part.parent} ({error.strerror}): hard links stay on "
            "one disk. Use how=copy or how=symlink",
        ) from error


def _record(root: Path, spec: DatasetSpec, files: Placed) -> None:
    """The manifest, once all is well."""
    hashes = {path: digest for path, (digest, _) in files.items()}
    manifest = read_manifest(root)
    if manifest is None or manifest.files != hashes:
        write_manifest(root, Manifest(spec.name, hashes))
