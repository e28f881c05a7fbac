import numpy as np
import pytest
from PIL import Image

from datasets.images.tree import DataError, ImageTree, tree_of
from datasets.known.registry import KNOWN
from tests.support.strategies import labels, photo


@pytest.fixture
def tree(tmp_path) -> ImageTree:
    """One image `a` of 30 x 20 pixels with a palette mask of 5 classes."""
    tree = ImageTree(tmp_path, "images/{id}.jpg", "masks/{id}.png", 5)
    tree.image_path("a").parent.mkdir()
    tree.mask_path("a").parent.mkdir()
    photo(1, (30, 20)).save(tree.image_path("a"))
    mask = labels(1, (30, 20))
    mask.putpalette([channel for value in range(256) for channel in (value, 7, 255 - value)])
    mask.save(tree.mask_path("a"))
    return tree


def test_a_palette_mask_is_read_as_indices(tree) -> None:
    image, mask = tree.pair("a")

    assert image.mode == "RGB"
    assert mask.mode == "P"
    assert np.array_equal(np.asarray(mask), np.asarray(labels(1, (30, 20))))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_images_of_any_mode_are_read_as_rgb(tree, mode) -> None:
    photo(2, (30, 20)).convert(mode).save(tree.image_path("a"))

    assert tree.image("a").mode == "RGB"


def test_a_missing_image_is_named(tree) -> None:
    tree.image_path("a").unlink()

    with pytest.raises(DataError, match=r"image .*images/a\.jpg is missing.*Put it there"):
        tree.image("a")


def test_a_missing_mask_is_named(tree) -> None:
    tree.mask_path("a").unlink()

    with pytest.raises(DataError, match=r"mask .*masks/a\.png is missing.*Put it there"):
        tree.pair("a")


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.9])
def test_a_truncated_jpeg_is_named(tree, part) -> None:
    path = tree.image_path("a")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])

    with pytest.raises(DataError, match=r"images/a\.jpg cannot be decoded.*fresh copy"):
        tree.image("a")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.8])
def test_a_truncated_mask_is_named(tree, part) -> None:
    path = tree.mask_path("a")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])

    with pytest.raises(DataError, match=r"masks/a\.png cannot be decoded"):
        tree.mask("a")


@pytest.mark.parametrize("value", [5, 20, 254])
def test_a_class_out_of_range_is_named_with_its_value(tree, value) -> None:
    Image.new("L", (30, 20), value).save(tree.mask_path("a"))

    with pytest.raises(DataError, match=rf"a\.png holds class {value}, .* 5 classes"):
        tree.mask("a")


@pytest.mark.parametrize("value", [0, 4, 255])
def test_every_class_and_255_are_in_range(tree, value) -> None:
    Image.new("L", (30, 20), value).save(tree.mask_path("a"))

    assert tree.mask("a").getextrema() == (value, value)


def test_a_mask_of_colours_is_refused(tree) -> None:
    photo(3, (30, 20)).save(tree.mask_path("a"))

    with pytest.raises(DataError, match=r"a\.png has colours \(mode RGB\).*Convert"):
        tree.mask("a")


def test_image_and_mask_of_different_size_are_refused(tree) -> None:
    labels(1, (20, 30)).save(tree.mask_path("a"))

    with pytest.raises(DataError, match=r"a\.png is 20x30 pixels, its image .*a\.jpg is 30x20"):
        tree.pair("a")


def test_cityscapes_ids_lead_to_its_two_folders(tmp_path) -> None:
    tree = tree_of(KNOWN["cityscapes"].spec, tmp_path)
    name = "train/jena/jena_000078_000019"

    image = "leftImg8bit/train/jena/jena_000078_000019_leftImg8bit.png"
    mask = "gtFine/train/jena/jena_000078_000019_gtFine_labelTrainIds.png"

    assert tree.image_path(name) == tmp_path / image
    assert tree.mask_path(name) == tmp_path / mask
    assert tree.num_classes == 19
