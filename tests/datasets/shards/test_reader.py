"""Shards give the same samples as files, from a folder and from a real S3 server."""

import hashlib
import io
import multiprocessing
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from datasets.__main__ import main
from datasets.config import DataConfig
from datasets.dataset import Dataset, open_dataset
from datasets.errors import DataError
from datasets.loading.loader import BatchPlan, batches
from datasets.location import locate
from datasets.prepare.verify import defects
from datasets.shards.download_cache import ItemCache
from datasets.shards.reader import PACKED_FILE, download_index
from datasets.storage.open import open_storage
from tests.support import dataset_trees as trees
from tests.support.process_groups import FORKSERVER


def pack(config: DataConfig, target: str, *more: str) -> None:
    line = ["pack", f"dataset={config.dataset}", f"root={config.root}", f"to={target}", *more]
    assert main(line) == 0


@pytest.fixture
def near(tmp_path, config, dataset) -> DataConfig:
    """The drawn scenes in shards of a folder."""
    pack(config, str(tmp_path / "packed"))
    return replace(config, root=str(tmp_path / "packed"))


@pytest.fixture
def far(tmp_path, config, dataset, store) -> DataConfig:
    """The drawn scenes in shards of a bucket."""
    pack(config, store.url)
    download_index.cache_clear()
    return replace(config, root=store.url, cache=str(tmp_path / "cache"))


def content(dataset: Dataset, config: DataConfig, workers: int = 0) -> str:
    """sha256 of some batches."""
    digest = hashlib.sha256()
    plan = BatchPlan(batch=3, start=2, stop=5, workers=workers, num_channel_bits=4)
    for labelled, unlabelled in batches(dataset, config, seed=7, plan=plan):
        for part in (labelled, unlabelled):
            buffer = io.BytesIO()
            torch.save([vars(part)[name] for name in sorted(vars(part))], buffer)
            digest.update(buffer.getvalue())
    return digest.hexdigest()


@pytest.mark.parametrize("more", [[], ["decoded=yes"], ["shard_mib=0"]])
def test_samples_from_shards_of_a_folder_are_those_of_files(
    tmp_path, config, dataset, more
) -> None:
    pack(config, str(tmp_path / "packed"), *more)
    packed = replace(config, root=str(tmp_path / "packed"))

    opened = open_dataset(packed)

    assert opened.fingerprint == dataset.fingerprint
    assert opened.split == dataset.split
    assert content(opened, packed) == content(dataset, config)
    for name in opened.split.validation:
        assert np.array_equal(opened.tree.image(name), dataset.tree.image(name))
        assert np.array_equal(opened.tree.mask(name), dataset.tree.mask(name))
    assert list(defects(locate(packed))) == []


def test_samples_from_s3_are_those_of_files_with_workers_too(far, config, dataset) -> None:
    opened = open_dataset(far)

    assert opened.fingerprint == dataset.fingerprint
    assert content(opened, far) == content(dataset, config)
    assert content(opened, far, workers=2) == content(dataset, config)


def test_any_parquet_reader_reads_the_shards(near, dataset) -> None:
    rows = pq.read_table(Path(near.root) / "shards").to_pylist()

    assert len(rows) == 26
    for row in rows:
        tree = dataset.tree
        path = (tree.image_path if row["kind"] == "image" else tree.mask_path)(row["id"])
        assert row["data"] == path.read_bytes()
        assert row["sha256"] == hashlib.sha256(row["data"]).hexdigest()
        assert row["size"] == len(row["data"])
        assert (row["width"], row["height"]) == (56, 40)


def test_packing_twice_gives_the_same_bytes(near, tmp_path, config) -> None:
    assert open_dataset(near).fingerprint  # leaves its record beside the shards
    before = trees.snapshot(Path(near.root))

    pack(config, near.root)

    after = trees.snapshot(Path(near.root))
    assert {name: data for name, (_, data) in after.items()} == {
        name: data for name, (_, data) in before.items()
    }


def test_what_was_fetched_is_not_fetched_again(far, store) -> None:
    dataset = open_dataset(far)
    names = [*dataset.split.labelled, *dataset.split.validation]
    for name in names:
        dataset.tree.pair(name)
    first = store.proxy.count("GET .*shards")

    for name in names:
        open_dataset(far).tree.pair(name)

    assert first == 2 * len(names)
    assert store.proxy.count("GET .*shards") == first


def test_the_cache_stays_below_its_bound(far) -> None:
    bound = 24_000
    far = replace(far, cache_gib=bound / 2**30)
    dataset, sizes = open_dataset(far), []
    split = dataset.split
    for name in (*split.labelled, *split.unlabelled, *split.validation):
        dataset.tree.pair(name)
        sizes.append(ItemCache(Path(far.cache) / "items", 0).size())

    assert bound // 2 < max(sizes) <= bound
    assert sizes != sorted(sizes)  # something had to go


def test_what_is_wanted_ahead_comes_by_one_request_where_it_lies_together(far, store) -> None:
    dataset = open_dataset(far)
    names = dataset.split.labelled
    before = store.proxy.count("GET .*shards")

    dataset.tree.prefetch(names, names)
    for name in names:
        dataset.tree.pair(name)

    assert store.proxy.count("GET .*shards") - before == 1


def test_what_lies_far_apart_is_not_one_request(far, store, monkeypatch) -> None:
    monkeypatch.setattr("datasets.shards.reader._GAP", 100)  # bytes: only a mask is so near
    dataset = open_dataset(far)
    one, other = dataset.split.validation[0], dataset.split.validation[-1]
    before = store.proxy.count("GET .*shards")

    dataset.tree.prefetch([other, one], [other, one])
    for name in (one, other):
        dataset.tree.pair(name)

    assert store.proxy.count("GET .*shards") - before == 2


def test_shards_survive_pickling_and_forking(far, dataset) -> None:
    tree = open_dataset(far).tree
    tree.prefetch(dataset.split.labelled)
    name = dataset.split.validation[0]
    tree.image(name)
    for context in (multiprocessing.get_context("fork"), FORKSERVER):
        with context.Pool(1) as pool:
            image = pool.apply(tree.image, (name,))
        assert np.array_equal(image, dataset.tree.image(name))
    assert np.array_equal(pickle.loads(pickle.dumps(tree)).image(name), dataset.tree.image(name))


@pytest.mark.parametrize("harm", ["status", "cut_answer", "flip"])
def test_harm_on_the_way_moves_no_bit(far, store, config, dataset, harm) -> None:
    rule = store.proxy.harm("GET .*shards", harm, times=2)

    assert content(open_dataset(far), far) == content(dataset, config)
    assert rule.hits == 2


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_shard_is_named_with_the_image(near) -> None:
    index = pq.read_table(Path(near.root) / "index.parquet").to_pylist()
    flip(Path(near.root) / "shards/00000.parquet", index[0]["offset"] + 1000)

    texts = [defect.text for defect in defects(locate(near))]

    assert len(texts) == 1
    assert "shards/00000.parquet is damaged at the image of scene_00000. Pack" in texts[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("shards/00000.parquet", "00000.parquet is missing. Pack the dataset again"),
        ("index.parquet", "index.parquet is missing. Pack the dataset again"),
    ],
)
def test_a_missing_part_is_named(near, file, text) -> None:
    (Path(near.root) / file).unlink()

    with pytest.raises(DataError, match=text):
        open_dataset(near).tree.image("scene_00000")


def test_a_broken_index_is_named(near) -> None:
    (Path(near.root) / "index.parquet").write_bytes(b"PAR1")

    with pytest.raises(DataError, match=r"index\.parquet is no index of shards"):
        open_dataset(near)


def test_a_damaged_cache_is_fetched_again(far, dataset) -> None:
    name = dataset.split.labelled[0]
    open_dataset(far).tree.pair(name)
    for path in (Path(far.cache) / "items").rglob("??/*"):
        flip(path, 100)

    assert np.array_equal(open_dataset(far).tree.image(name), dataset.tree.image(name))


def test_only_a_proved_tree_is_packed(tmp_path, capsys) -> None:
    root = trees.merged_voc(tmp_path / "voc")

    assert main(["pack", "dataset=voc", f"root={root}", f"to={tmp_path / 'x'}"]) == 2
    assert "Prove it: python -m datasets verify dataset=voc" in capsys.readouterr().err


def test_a_place_with_other_things_is_left_alone(tmp_path, config, dataset, capsys) -> None:
    trees.put(tmp_path / "x/holiday.jpg", b"mine")

    assert main(["pack", f"root={config.root}", f"to={tmp_path / 'x'}"]) == 2
    assert "(holiday.jpg); they stay as they are" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["holiday.jpg"]


def test_other_packed_data_is_not_written_over(near, tmp_path, capsys) -> None:
    main(["draw", f"root={tmp_path / 'other'}", "num_train=2", "num_val=1"])

    assert main(["pack", f"root={tmp_path / 'other'}", f"to={near.root}"]) == 2
    assert "holds other packed data. Choose another place" in capsys.readouterr().err


def test_lists_and_description_travel_with_the_shards(tmp_path, store) -> None:
    root = tmp_path / "mine"
    for index in range(6):
        trees.put(root / f"x/i{index}.jpg", trees.jpeg(index))
        trees.put(root / f"y/i{index}.png", trees.grey_png(trees.labels(index, trees.SIZE, 2)))
    trees.put(root / "dataset.yaml", "classes: [a, b]\nimages: x/{id}.jpg\nmasks: y/{id}.png\n")
    main(["prepare", "folder", f"root={root}"])
    files = DataConfig(dataset="folder", root=str(root), split="all", crop=16)
    targets = [str(tmp_path / "packed"), *([store.url] if store else [])]
    for target in targets:
        pack(files, target)
        packed = replace(files, root=target, cache=str(tmp_path / "cache"))

        assert open_dataset(packed).split == open_dataset(files).split
        assert open_dataset(packed).spec == open_dataset(files).spec
        assert open_dataset(packed).fingerprint == open_dataset(files).fingerprint


def test_an_empty_place_says_how_to_pack(store, tmp_path) -> None:
    download_index.cache_clear()

    with pytest.raises(DataError, match=r"holds no packed dataset .*python -m datasets pack"):
        open_dataset(DataConfig(root=store.url, cache=str(tmp_path)))


def test_newly_packed_data_replaces_what_was_brought_near(far, store) -> None:
    open_dataset(far)
    storage = open_storage(store.url)
    about = storage.read(PACKED_FILE).replace(b"shards 1", b"shards 2")
    storage.write(PACKED_FILE, about)
    download_index.cache_clear()

    with pytest.raises(DataError, match=r"was not written by this version \(format 'ipixmatch sh"):
        open_dataset(far)


def test_a_full_disk_costs_the_cache_and_not_the_run(far, dataset) -> None:
    cache = Path(far.cache) / "items"
    opened = open_dataset(far)
    shutil.rmtree(cache)  # with the first mask, which was read when the data were opened
    cache.mkdir(parents=True)
    for number in range(256):
        (cache / f"{number:02x}").write_text("no folder")  # nothing can be written below
    name = dataset.split.labelled[0]

    assert np.array_equal(opened.tree.image(name), dataset.tree.image(name))
    assert not list(cache.rglob("??/*"))


def test_a_file_that_changed_since_it_was_proved_is_not_packed(own_config, tmp_path, capsys):
    tree = open_dataset(own_config).tree
    one, two = open_dataset(own_config).split.labelled[:2]
    tree.image_path(one).write_bytes(tree.image_path(two).read_bytes())

    assert main(["pack", f"root={own_config.root}", f"to={tmp_path / 'packed'}"]) == 2

    error = capsys.readouterr().err
    assert f"{tree.image_path(one)} has changed since manifest.json was written" in error
    assert "python -m datasets verify" in error


def test_packing_anew_that_breaks_off_leaves_nothing_that_looks_whole(own_config, tmp_path) -> None:
    dataset, target = open_dataset(own_config), tmp_path / "packed"
    pack(own_config, str(target))
    dataset.tree.image_path(dataset.split.validation[-1]).unlink()

    assert main(["pack", f"root={own_config.root}", f"to={target}", "shard_mib=0"]) == 2

    assert not (target / PACKED_FILE).exists()
    with pytest.raises(DataError, match="lacks"):
        open_dataset(replace(own_config, root=str(target)))
