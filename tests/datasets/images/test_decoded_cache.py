import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from datasets.dataset import Dataset, open_dataset
from datasets.errors import DataError
from datasets.images.decoded_cache import DecodedCache
from datasets.images.tree import ImageTree
from tests.support.process_groups import FORKSERVER


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def cache_of(tree: ImageTree, folder: Path) -> DecodedCache:
    return DecodedCache(tree, folder, fingerprint="f", reserve_bytes=0)


def same(cache: DecodedCache, dataset: Dataset) -> bool:
    """Whether all images and masks are those of the files."""
    tree, split = dataset.tree, dataset.split
    for name in split.labelled:
        for pixels, expected in zip(cache.pair(name), tree.pair(name), strict=True):
            if not np.array_equal(pixels, np.asarray(expected)):
                return False
    return all(
        np.array_equal(cache.image(name), np.asarray(tree.image(name)))
        for name in (*split.unlabelled, *split.labelled)
    )


def test_kept_images_are_the_decoded_ones_and_are_written_once(dataset, tmp_path) -> None:
    assert same(cache_of(dataset.tree, tmp_path), dataset)
    first = {path: path.stat().st_mtime_ns for path in kept(tmp_path)}

    assert same(cache_of(dataset.tree, tmp_path), dataset)

    split = dataset.split
    assert {path: path.stat().st_mtime_ns for path in kept(tmp_path)} == first
    assert len(first) == 2 * len(split.labelled) + len(split.unlabelled)


def test_a_kept_image_is_mapped_and_not_decoded(own_config, tmp_path) -> None:
    dataset = open_dataset(own_config)
    name = dataset.split.unlabelled[0]
    expected = cache_of(dataset.tree, tmp_path).image(name).copy()
    source = dataset.tree.image_path(name)
    facts = source.stat()
    source.write_bytes(b"x" * facts.st_size)
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    pixels = cache_of(dataset.tree, tmp_path).image(name)

    assert np.array_equal(pixels, expected)
    assert not pixels.flags.writeable


def test_an_image_that_changed_is_decoded_again(own_config, tmp_path) -> None:
    dataset = open_dataset(own_config)
    one, two = dataset.split.unlabelled[:2]
    cache_of(dataset.tree, tmp_path).image(one)
    data = dataset.tree.image_path(two).read_bytes()
    dataset.tree.image_path(one).write_bytes(data)

    pixels = cache_of(dataset.tree, tmp_path).image(one)

    assert np.array_equal(pixels, np.asarray(dataset.tree.image(two)))


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_kept_file_that_was_harmed_is_written_again(dataset, tmp_path, harm: str) -> None:
    name = dataset.split.unlabelled[0]
    expected = cache_of(dataset.tree, tmp_path).image(name).copy()
    (path,) = kept(tmp_path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.unlink()
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[:100]), "empty": b""}[harm])

    assert np.array_equal(cache_of(dataset.tree, tmp_path).image(name), expected)
    assert np.array_equal(cache_of(dataset.tree, tmp_path).image(name), expected)
    assert path.stat().st_size == len(data)


def fill(tree: ImageTree, folder: Path, names: list[str]) -> None:
    cache = cache_of(tree, folder)
    for name in names:
        cache.image(name)


def test_processes_may_fill_it_at_once(dataset, tmp_path) -> None:
    names = list(dataset.split.unlabelled)
    workers = [
        FORKSERVER.Process(target=fill, args=(dataset.tree, tmp_path, names)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(kept(tmp_path)) == len(names)
    assert same(cache_of(dataset.tree, tmp_path), dataset)


def test_a_full_disk_is_left_alone_and_said_once(dataset, tmp_path) -> None:
    cache = DecodedCache(dataset.tree, tmp_path, fingerprint="f", reserve_bytes=1 << 60)

    with pytest.warns(UserWarning, match=r"nearly full.*same bits.*run\.cache_folder"):
        cache.image(dataset.split.unlabelled[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(cache, dataset)

    assert kept(tmp_path) == []


def test_other_data_never_share_a_file(dataset, tmp_path) -> None:
    name = dataset.split.unlabelled[0]
    for fingerprint in ("one", "two"):
        DecodedCache(dataset.tree, tmp_path, fingerprint=fingerprint, reserve_bytes=0).image(name)

    assert len(kept(tmp_path)) == 2


def test_a_missing_image_is_named(own_config, tmp_path) -> None:
    dataset = open_dataset(own_config)
    name = dataset.split.unlabelled[0]
    dataset.tree.image_path(name).unlink()

    with pytest.raises(DataError, match=f"{name}.* is missing"):
        cache_of(dataset.tree, tmp_path).image(name)
