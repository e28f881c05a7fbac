"""Trees with one thing wrong each: the message names the file and says what to do."""

import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.config import DataConfig
from datasets.errors import DataError
from datasets.images.decode import read_image
from datasets.images.tree import tree_of
from datasets.known.registry import KNOWN
from datasets.location import locate
from datasets.prepare.verify import defects
from tests.support import dataset_trees as trees
from tests.support.strategies import labels, photo

IMAGE, MASK = "JPEGImages/t0.jpg", "SegmentationClass/t0.png"
W, H = trees.SIZE


@pytest.fixture
def root(tmp_path) -> Path:
    """A small VOC tree with lists: t0 s0 labelled, t1 s1 not, v0 v1 for validation."""
    root = trees.merged_voc(tmp_path / "voc")
    trees.voc_lists(root)
    return root


def defects_of(root: Path) -> list[str]:
    location = locate(DataConfig(dataset="voc", root=str(root), split="mine"))
    return [defect.text for defect in defects(location)]


def saved(path: Path, image: Image.Image, kind: str, **options: object) -> None:
    path.unlink()
    image.save(path, kind, **options)


def cut(path: Path, part: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


def replaced_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def linked(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def with_exif(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    saved(path, photo(0, trees.SIZE), "JPEG", exif=exif)


def transparent(path: Path) -> None:
    image = photo(0, trees.SIZE).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(trees.SIZE))
    saved(path, image, "PNG")


def renamed(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


def crc_broken(path: Path) -> None:
    data = bytearray(trees.grey_png(labels(0, trees.SIZE, 21)))
    data[-60] ^= 0xFF  # in the compressed pixels
    path.write_bytes(bytes(data))


GREY = Image.fromarray(np.arange(W * H, dtype=np.uint16).reshape(H, W) * 100)
KINDS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "image missing": (IMAGE, Path.unlink, "is missing. Put it there"),
    "image empty": (IMAGE, lambda p: p.write_bytes(b""), "it is empty.*Bring a fresh copy"),
    "image cut in its head": (IMAGE, lambda p: cut(p, 0.05), "cannot be decoded.*fresh copy"),
    "image cut in the middle": (IMAGE, lambda p: cut(p, 0.6), "cannot be decoded.*truncated"),
    "progressive image cut": (
        IMAGE,
        lambda p: p.write_bytes(trees.jpeg(0, progressive=True)[:-200]),
        "cannot be decoded.*truncated",
    ),
    "image is a web page": (
        IMAGE,
        lambda p: p.write_text("<!DOCTYPE html><title>404"),
        "is a web page.*Download the file again",
    ),
    "image is an LFS pointer": (
        IMAGE,
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        "pointer of Git LFS. Run `git lfs pull`",
    ),
    "image is an archive": (IMAGE, lambda p: p.write_bytes(b"PK\x03\x04"), "archive. Unpack it"),
    "image is noise": (IMAGE, lambda p: p.write_bytes(os.urandom(99)), "cannot be decoded"),
    "image is a folder": (IMAGE, replaced_by_folder, "is a folder. Move it away"),
    "image is a link to nothing": (
        IMAGE,
        lambda p: linked(p, "/gone/t0.jpg"),
        "link to /gone/t0.jpg, which is gone; bring the target back",
    ),
    "image is a link to itself": (IMAGE, lambda p: linked(p, "t0.jpg"), "cannot be read.*links"),
    "image with another case": (
        IMAGE,
        lambda p: renamed(p, "T0.JPG"),
        "is missing. T0.JPG lies there: rename or convert it to t0.jpg",
    ),
    "image of another format": (IMAGE, lambda p: renamed(p, "t0.png"), "t0.png lies there"),
    "image of 16-bit grey": (
        IMAGE,
        lambda p: saved(p, GREY, "PNG"),
        "more than 8 bits a channel.*Convert it to 8 bits",
    ),
    "image of 16-bit colours": (
        IMAGE,
        lambda p: p.write_bytes(trees.png(16, 2, (b"\0" + bytes(range(6)) * W) * H)),
        "more than 8 bits a channel.*RGB;16B",
    ),
    "image of floats": (
        IMAGE,
        lambda p: saved(p, photo(0, trees.SIZE).convert("F"), "TIFF"),
        "more than 8 bits a channel",
    ),
    "image with transparency": (IMAGE, transparent, "transparent pixels.*Flatten it"),
    "image in Lab colours": (
        IMAGE,
        lambda p: saved(p, Image.new("LAB", trees.SIZE), "TIFF"),
        "mode LAB, which has no fixed meaning as RGB. Convert",
    ),
    "image turned by EXIF": (IMAGE, lambda p: with_exif(p, 6), "EXIF orientation 6.*exiftran -ai"),
    "image turned over by EXIF": (IMAGE, lambda p: with_exif(p, 3), "EXIF orientation 3"),
    "image claims to be huge": (
        IMAGE,
        lambda p: p.write_bytes(trees.png(8, 2, b"", (60000, 60000))),
        "larger than Pillow reads",
    ),
    "mask missing": (MASK, Path.unlink, "mask .*is missing. Put it there"),
    "mask empty": (MASK, lambda p: p.write_bytes(b""), "mask .*it is empty"),
    "mask cut": (MASK, lambda p: cut(p, 0.5), "mask .*cannot be decoded"),
    "mask with a wrong checksum": (MASK, crc_broken, "mask .*cannot be decoded.*fresh copy"),
    "mask of colours": (
        MASK,
        lambda p: saved(p, photo(0, trees.SIZE), "PNG"),
        "has colours .mode RGB. where class indices are expected. Convert",
    ),
    "mask of colours and alpha": (
        MASK,
        lambda p: saved(p, photo(0, trees.SIZE).convert("RGBA"), "PNG"),
        "has colours .mode RGBA.",
    ),
    "mask of 16 bits": (MASK, lambda p: saved(p, GREY, "PNG"), "mask .*more than 8 bits"),
    "mask of one bit": (
        MASK,
        lambda p: saved(p, Image.new("1", trees.SIZE), "PNG"),
        "is of 1 bit .mode 1. where class indices",
    ),
    "mask is a JPEG": (
        MASK,
        lambda p: saved(p, labels(0, trees.SIZE, 21), "JPEG"),
        "is a JPEG, which changes values.*again as PNG",
    ),
    "mask with an unknown class": (
        MASK,
        lambda p: saved(p, Image.new("L", trees.SIZE, 21), "PNG"),
        "holds class 21, but there are 21 classes .0 to 20; 255 is ignored.. Convert the mask",
    ),
    "mask with UniMatch's padding value": (
        MASK,
        lambda p: saved(p, Image.new("L", trees.SIZE, 254), "PNG"),
        "holds class 254",
    ),
    "mask of another size": (
        MASK,
        lambda p: saved(p, labels(0, (W + 1, H), 21), "PNG"),
        "is 31x20 pixels, its image .* is 30x20. Replace",
    ),
    "mask turned by a quarter": (
        MASK,
        lambda p: saved(p, labels(0, (H, W), 21), "PNG"),
        "is 20x30 pixels.*turned by a quarter",
    ),
    "mask is a folder": (MASK, replaced_by_folder, "is a folder. Move it away"),
    "list missing": (
        "splits/mine/unlabeled.txt",
        Path.unlink,
        "unlabeled.txt is missing. Bring the published lists.*splits fetch",
    ),
    "list names an image twice": (
        "splits/mine/labeled.txt",
        lambda p: p.write_text(p.read_text() * 2),
        "more than once.*Remove the repeated lines",
    ),
    "list labels a validation image": (
        "splits/mine/labeled.txt",
        lambda p: p.write_text((p.parents[1] / "val.txt").read_text()),
        "both labelled and validation.*remove it from the other",
    ),
    "list of half a line": (
        "splits/val.txt",
        lambda p: p.write_text("JPEGImages/v0.jpg\nv1\n"),
        "val.txt, line 1: 'JPEGImages/v0.jpg' is no line of voc; one reads like",
    ),
    "list of another encoding": (
        "splits/mine/labeled.txt",
        lambda p: p.write_bytes(p.read_text().encode("utf-16")),
        "labeled.txt is no UTF-8 text.*Save it as UTF-8",
    ),
    "manifest broken": (
        "manifest.json",
        lambda p: p.write_text('{"format": "another"}'),
        "cannot be read as a manifest.*Remove it",
    ),
}


def test_there_are_at_least_thirty_kinds() -> None:
    assert len(KINDS) >= 30


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_is_named_with_its_cure(root, kind) -> None:
    path, breaking, text = KINDS[kind]
    breaking(root / path)

    try:
        texts = defects_of(root)
    except DataError as error:  # of a list or the manifest: nothing else can be said
        texts = [str(error)]

    assert len(texts) == 1, texts
    assert str(root / path) in texts[0] or f"({root}/splits" in texts[0]
    assert re.search(text, texts[0], re.DOTALL), texts[0]
    assert not (root / "manifest.json").exists() or kind == "manifest broken"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so the test becomes somebody else."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.mark.parametrize("path", [IMAGE, MASK])
def test_a_file_that_may_not_be_read_is_named_with_the_right_to_give(path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        root = trees.merged_voc(Path(folder))
        root.chmod(0o755)
        (root / path).chmod(0)
        tree = tree_of(KNOWN["voc"].spec, root)

        with as_nobody(), pytest.raises(DataError, match=r"may not be read.*chmod a\+r .*t0"):
            tree.pair("t0")


ENCODINGS: dict[str, Callable[[Path], object]] = {
    **{
        f"jpeg {options}": lambda p, o=options: p.write_bytes(trees.jpeg(0, **o))  # type: ignore[misc]
        for options in trees.JPEGS
    },
    "cmyk": lambda p: saved(p, photo(0, trees.SIZE).convert("CMYK"), "JPEG"),
    "grey": lambda p: saved(p, photo(0, trees.SIZE).convert("L"), "JPEG"),
    "one bit": lambda p: saved(p, photo(0, trees.SIZE).convert("1"), "PNG"),
    "palette": lambda p: saved(p, photo(0, trees.SIZE).convert("P"), "PNG"),
    "opaque alpha": lambda p: saved(p, photo(0, trees.SIZE).convert("RGBA"), "PNG"),
    "grey and opaque alpha": lambda p: saved(p, photo(0, trees.SIZE).convert("LA"), "PNG"),
    "upright by EXIF": lambda p: with_exif(p, 1),
    "png named jpg": lambda p: saved(p, photo(0, trees.SIZE), "PNG"),
    "bmp": lambda p: saved(p, photo(0, trees.SIZE), "BMP"),
    "webp": lambda p: saved(p, photo(0, trees.SIZE), "WEBP"),
    "16 palette colours": lambda p: saved(p, photo(0, trees.SIZE).quantize(16), "PNG", bits=4),
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_what_has_a_plain_meaning_is_read_as_rgb(root, kind) -> None:
    ENCODINGS[kind](root / IMAGE)

    image = tree_of(KNOWN["voc"].spec, root).image("t0")

    with Image.open(root / IMAGE) as plain:
        expected = (
            plain.convert("RGBA").convert("RGB") if "A" in plain.mode else plain.convert("RGB")
        )
    assert (image.mode, image.size) == ("RGB", trees.SIZE)
    assert np.array_equal(image, expected)
    assert defects_of(root) == []


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_masks_of_few_bits_are_read_as_indices(root, bits) -> None:
    values = np.asarray(labels(0, trees.SIZE, 2)) % 2
    mask = Image.fromarray(values).convert("P")
    mask.putpalette([9, 9, 9, 200, 0, 0])
    saved(root / MASK, mask, "PNG", bits=bits)

    assert np.array_equal(tree_of(KNOWN["voc"].spec, root).mask("t0"), values)


def test_a_list_with_a_byte_order_mark_is_read(root) -> None:
    path = root / "splits/mine/labeled.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))

    assert defects_of(root) == []


def test_every_defect_is_told_and_not_only_the_first(root) -> None:
    for name, (path, breaking, _) in list(KINDS.items())[:8]:
        breaking(
            root / path.replace("t0", {"image missing": "t0", "image empty": "t1"}.get(name, "s0"))
        )

    assert len(defects_of(root)) == 3


def test_what_changes_after_the_proof_is_named(root) -> None:
    assert defects_of(root) == []
    flipped = bytearray((root / IMAGE).read_bytes())
    flipped[-30] ^= 1  # decodes, and is another picture
    (root / IMAGE).write_bytes(bytes(flipped))
    shutil.move(root / MASK, root / "elsewhere.png")

    texts = defects_of(root)

    assert any(f"{root / IMAGE} has changed since" in text for text in texts)
    assert any(f"{root / MASK} is gone since" in text for text in texts)
    assert all("Bring the file back" in text or "is missing" in text for text in texts)


def test_masks_of_0_and_255_are_told_apart_from_classes(root) -> None:
    for path in (root / "SegmentationClass").iterdir():
        saved(path, Image.new("L", trees.SIZE, 0), "PNG")

    assert "no mask shows any class but 'background'. Masks of 0 and 255" in defects_of(root)[0]


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads that take turns every microsecond."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_threads_that_read_large_images_print_no_warning(monkeypatch, eager_threads) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", W * H - 1)  # Pillow warns of such an image
    data = trees.jpeg(0)
    with warnings.catch_warnings(record=True) as said, ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("always")
        for _ in pool.map(lambda number: read_image(data, f"{number}.jpg"), range(800)):
            pass

    assert not said
