import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.config import DataConfig
from datasets.errors import DataError
from datasets.images.decode import MaskCode
from datasets.images.lazy import LazyTree
from datasets.images.pixels import ImageLike, LazyImage, band_of, part_of, size_of
from datasets.images.tree import ImageTree
from datasets.loading.samples import LabelledSource, UnlabelledSource
from tests.support.strategies import photo

SIZE = (60, 44)
NAMES = [f"p{index}" for index in range(6)]
CONFIG = DataConfig(crop=20)


def mask_of(index: int) -> Image.Image:
    classes = np.asarray(photo(index + 50, SIZE).convert("L")) % 6
    return Image.fromarray(np.where(classes == 5, 255, classes).astype(np.uint8))


def tree_at(root: Path, *, suffix: str = "png", code: MaskCode | None = None) -> ImageTree:
    """Masks are grey and palettes in turn; the last image is a palette."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for index, name in enumerate(NAMES):
        image, mask = photo(index, SIZE), mask_of(index)
        if index % 2:
            mask.putpalette([channel for value in range(256) for channel in (value, 0, 9)])
        if index == 5 and suffix == "png":
            image = image.quantize(64)
        image.save(root / "images" / f"{name}.{suffix}")
        mask.save(root / "masks" / f"{name}.png")
    return ImageTree(root, f"images/{{id}}.{suffix}", "masks/{id}.png", 5, code)


def rgb(photo: ImageLike) -> np.ndarray:
    width, height = size_of(photo)
    return part_of(photo, (0, 0, width, height))[..., :3]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_batches_are_those_of_whole_pictures(tmp_path: Path, suffix: str) -> None:
    tree = tree_at(tmp_path, suffix=suffix)
    positions = range(8)

    for kind in (LabelledSource, UnlabelledSource):
        whole, coded = (kind(photos, NAMES, CONFIG, 3) for photos in (tree, LazyTree(tree)))
        options = {"batch": 8} if kind is UnlabelledSource else {}
        one, other = (source.batch(positions, 9, **options) for source in (whole, coded))
        for field, value in vars(one).items():
            decoded = getattr(other, field)
            assert np.array_equal(np.asarray(decoded), np.asarray(value)), field


def test_a_picture_has_the_pixels_of_the_tree(tmp_path: Path) -> None:
    tree = tree_at(tmp_path)

    for name in NAMES:
        image, mask = LazyTree(tree).pair(name)
        assert np.array_equal(rgb(image), np.asarray(tree.image(name)))
        assert np.array_equal(part_of(mask, (0, 0, *SIZE)), np.asarray(tree.mask(name)))
        assert np.array_equal(band_of(image, 3, 9), np.asarray(tree.image(name))[3:9])


def test_mask_values_are_those_of_the_tree_s_code(tmp_path: Path) -> None:
    tree = tree_at(tmp_path, code=MaskCode((4, 3, 2, 1), 0))
    for name in NAMES[2:]:
        mask = Image.open(tree.mask_path(name))
        mask.point([value % 5 for value in range(256)]).save(tree.mask_path(name))

    for name in NAMES[2:4]:
        _, mask = LazyTree(tree).pair(name)
        assert np.array_equal(part_of(mask, (0, 0, *SIZE)), np.asarray(tree.mask(name)))


def test_rows_below_what_was_asked_for_are_not_decoded() -> None:
    calls: list[int] = []
    pixels = np.arange(40, dtype=np.uint8).reshape(10, 4)

    def decode(rows: int) -> np.ndarray:
        calls.append(rows)
        return pixels[:rows]

    picture = LazyImage((4, 10), decode)
    picture.ask(4)
    picture.ask(6)

    assert np.array_equal(part_of(picture, (0, 1, 2, 3)), pixels[1:3, :2])
    assert np.array_equal(part_of(picture, (1, 0, 4, 6)), pixels[:6, 1:])
    assert calls == [6]
    assert np.array_equal(part_of(picture, (0, 0, 4, 10)), pixels)
    assert calls == [6, 10]


def test_a_size_that_differs_is_found_before_anything_is_decoded(tmp_path: Path) -> None:
    tree = tree_at(tmp_path)
    mask_of(0).transpose(Image.Transpose.ROTATE_90).save(tree.mask_path("p0"))

    with pytest.raises(DataError, match=r"44x60 pixels.*60x44\. It is turned by a quarter"):
        LazyTree(tree).pair("p0")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_class_that_does_not_exist_is_named(tmp_path: Path, mode: str) -> None:
    tree = tree_at(tmp_path)
    mask = mask_of(0)
    mask.putpixel((7, 5), 17)
    if mode == "P":
        mask.putpalette([0] * 768)
    mask.save(tree.mask_path("p0"))

    _, decoded = LazyTree(tree).pair("p0")

    with pytest.raises(DataError, match=r"p0\.png holds class 17, but there are 5 classes"):
        part_of(decoded, (0, 0, *SIZE))


@pytest.mark.parametrize("place", [0.3, 0.9])
def test_a_damaged_file_is_named_with_the_cure(tmp_path: Path, place: float) -> None:
    tree = tree_at(tmp_path)
    path = tree.image_path("p1")
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x55
    path.write_bytes(data)

    with pytest.raises(DataError, match=r"p1\.png cannot be decoded .*Bring a fresh copy"):
        rgb(LazyTree(tree).image("p1"))


def test_a_picture_too_large_for_one_block_of_pillow_is_copied(tmp_path: Path) -> None:
    image = photo(1, (40, 30)).resize((2100, 2050))

    decoded = part_of(image, (5, 2000, 2090, 2050))

    assert np.array_equal(decoded[..., :3], np.asarray(image)[2000:, 5:2090])


def test_a_view_outlives_its_picture_and_needs_no_pandas() -> None:
    code = """
import sys
from PIL import Image
from datasets.images.pixels import view_of
view = view_of(Image.linear_gradient("L").convert("RGB").crop((0, 0, 90, 256)))
print(int(view[..., :3].sum()), "pandas" in sys.modules)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert done.stdout.split() == [str(90 * 3 * sum(range(256))).encode(), b"False"]
