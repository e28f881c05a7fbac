"""Packing a verified tree into Parquet shards, in a folder or an S3 bucket."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from datasets.dataset import open_tree
from datasets.errors import DataError
from datasets.identity import RECORDS
from datasets.images.tree import ImageTree, Kind, file_bytes
from datasets.known.folder import DESCRIPTION_FILE
from datasets.location import DatasetLocation
from datasets.manifest import FILE_NAME, Manifest, data_fingerprint, read_manifest
from datasets.progress import Progress, Say
from datasets.shards.format import Record, index_bytes, shard_bytes, shard_name
from datasets.shards.reader import FORMAT, INDEX_FILE, PACKED_FILE
from datasets.storage.base import Storage

_SMALL = (".txt", ".json", ".yaml")


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How to pack.

    Attributes:
        is_decoded: whether pixels are stored, not files: larger, and no decoding when training.
        shard_bytes: of a shard, about.
    """

    is_decoded: bool = False
    shard_bytes: int = 64 * 2**20


def pack(location: DatasetLocation, target: Storage, packing: Packing, say: Say) -> int:
    """Pack the tree at the root; the number of shards.

    Every item is read and checked first. What says that the packing is complete is written last;
    after a stop the same command begins anew.

    Args:
        location: of the dataset.
        target: where to.
        packing: how.
        say: given a line of progress every two seconds.

    Raises:
        DataError: the tree was not verified, is broken, or the target holds something else.
    """
    spec, root = location.spec, location.root
    manifest, tree = read_manifest(root), open_tree(location)
    if manifest is None or tree.store is not None:
        raise DataError(
            f"{root} has no {FILE_NAME}, or is packed already; only a proved tree of files is "
            f"packed. Prove it: python -m datasets verify {location.words}"
        )
    fingerprint = data_fingerprint(manifest.files)
    _check_target(target, fingerprint)
    rows: list[dict[str, Any]] = []
    number = 0
    for number, records in enumerate(_batches(tree, manifest, packing, say)):
        content, entries = shard_bytes(records, number)
        target.write(shard_name(number), content)
        rows += entries
    small = _small_files(root)
    for path in small:
        target.write(path, (root / path).read_bytes())
    target.write(INDEX_FILE, index_bytes(rows))
    about = {
        "format": FORMAT,
        "dataset": spec.name,
        "fingerprint": fingerprint,
        "is_decoded": packing.is_decoded,
        "num_items": len(rows),
        "files": sorted([*small, INDEX_FILE]),
    }
    target.write(PACKED_FILE, (json.dumps(about, indent=1) + "\n").encode())
    return number + 1


def _check_target(target: Storage, fingerprint: str) -> None:
    """Raise if the target holds anything else; the same data, packed before, loses its mark."""
    entries = {entry.name for entry in target.entries()}
    is_packed = PACKED_FILE in entries
    if is_packed and json.loads(target.read(PACKED_FILE)).get("fingerprint") != fingerprint:
        raise DataError(f"{target.url} holds other packed data. Choose another place.")
    foreign = [name for name in entries if not _is_ours(name)]
    if foreign:
        raise DataError(
            f"{target.url} holds files that `pack` did not write ({min(foreign)}); they stay as "
            "they are. Choose an empty place."
        )
    # The old shards may be of another size; while both kinds are mixed it must not look complete.
    if is_packed:
        target.remove([PACKED_FILE])


def _is_ours(name: str) -> bool:
    return name.startswith(("shards/", "splits/", "ImageSets/", f"{RECORDS}/")) or name in (
        *(PACKED_FILE, INDEX_FILE, FILE_NAME, DESCRIPTION_FILE),
    )


def _small_files(root: Path) -> list[str]:
    """Lists, manifest, description: what a packed root needs besides items."""
    folders = [path for name in ("splits", "ImageSets") for path in (root / name).rglob("*")]
    small = [path for path in (*folders, *root.iterdir()) if path.suffix in _SMALL]
    names = sorted(path.relative_to(root).as_posix() for path in small if path.is_file())
    return [name for name in names if _is_ours(name) and name not in (PACKED_FILE, INDEX_FILE)]


def _batches(
    tree: ImageTree, manifest: Manifest, packing: Packing, say: Say
) -> Iterator[list[Record]]:
    names = tree.names(manifest.files)
    progress = Progress(len(names), "pack", say)
    batch: list[Record] = []
    for name in names:
        has_mask = tree.mask_path(name).relative_to(tree.root).as_posix() in manifest.files
        batch += _records(tree, name, packing, manifest, has_mask=has_mask)
        progress.step()
        if sum(len(record.data) for record in batch) >= packing.shard_bytes:
            yield batch
            batch = []
    if batch:
        yield batch


def _records(
    tree: ImageTree, name: str, packing: Packing, manifest: Manifest, *, has_mask: bool
) -> list[Record]:
    image, mask = tree.pair(name) if has_mask else (tree.image(name), None)
    data = _proved(tree.image_path(name), "image", tree.root, manifest)
    records = [_record(name, "image", image, data, is_decoded=packing.is_decoded)]
    if mask:
        data = _proved(tree.mask_path(name), "mask", tree.root, manifest)
        records.append(_record(name, "mask", mask, data, is_decoded=packing.is_decoded))
    return records


def _record(name: str, kind: Kind, image: Image.Image, data: bytes, *, is_decoded: bool) -> Record:
    if not is_decoded:
        return Record(name, kind, "file", *image.size, data)
    return Record(name, kind, "rgb" if kind == "image" else "index", *image.size, image.tobytes())


def _proved(path: Path, kind: Kind, root: Path, manifest: Manifest) -> bytes:
    """The bytes of a file, which must be those of the manifest: shards carry its fingerprint."""
    data = file_bytes(path, kind)
    if hashlib.sha256(data).hexdigest() != manifest.files[path.relative_to(root).as_posix()]:
        raise DataError(
            f"{path} has changed since {FILE_NAME} was written. Bring the file back, or prove the "
            f"new data: remove {root / FILE_NAME} and run `python -m datasets verify`."
        )
    return data
