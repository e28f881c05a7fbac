"""Trees as users have them, with the encodings that real files have."""

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.config import DataConfig
from datasets.images.decode import indexed_png
from datasets.known.list_file import line_of
from datasets.known.registry import KNOWN
from datasets.location import locate
from datasets.splits.lists import Split, load_split
from tests.support.strategies import labels, photo

VOC, CITYSCAPES = KNOWN["voc"].spec, KNOWN["cityscapes"].spec
SIZE = (30, 20)  # of the mask in SBD_MAT
# Written by scipy 1.17.1 (savemat, compressed) as SBD's files are: a struct GTcls of Boundaries
# (a cell of 20 sparse matrices), Segmentation (20 x 30) and CategoriesPresent.
SBD_MAT = base64.b85decode(
    "O+i#lK|&xkE-)ZXK~ybfX>4U6P;6mzW^ZzBIv{Xwb7^=iAVYFxVRU6=Aa8CuAWd&>AWm;~ATl!`F*G_eHaajiATl"
    "sAHUIzs00000000000000000000000000000000000000000000000000000000000000Bu&4*&oF8vy_Sc%1E+K~9"
    "A*5Qe7}M4k#nUAXcLZ{^CBF5H^v!sR2{5E6w1aOVL$7Dsa`(-cS`G2(-e`N^MwVcO1Dx*`C8-8sM^#v`<ZMlL;zmU"
    "Zs_>E*5bxp&}<^4I9w{3Cmfi&T{~0X(YYU1e2VrFqt5?&3-%xvqIAREh5}7oaaAyT0hHf6-bWsJ;eU?@HU7slV#YW"
    "8x>wFSEbQ!5mYHIc#K(>BJm1GRJgc4jY+cI<1i-5?ziE#yM`#&L3>%8QTXzJs!{)U9Wres4pMAK_8<}(5J)_{=#M-"
    "^u6e6Ro}M;=9pW|VdK&`zNF>wDL=%a$308fn?lk$avte_a*dXr8<#$hTNpl%`slU)S4q4)-05#9ia@6"
)
JPEGS = (
    {"quality": 75, "subsampling": 2},  # 4:2:0, as VOC's photographs
    {"quality": 95, "subsampling": 0},
    {"quality": 60, "subsampling": 1, "progressive": True},
    {"quality": 30, "optimize": True, "restart_marker_rows": 1},
)


def split_of(config: DataConfig) -> Split:
    """The configured split."""
    return load_split(locate(config), config.split)


def sbd_segmentation() -> np.ndarray:
    """The mask in `SBD_MAT`, as it was given to scipy."""
    mask = np.zeros((20, 30), np.uint8)
    mask[4:12, 5:20] = 15
    mask[10:18, 15:28] = 7
    return mask


def sbd_mat(mask: np.ndarray) -> bytes:
    """An SBD file with another mask of the same size, compressed by the same rules."""
    plain = zlib.decompress(SBD_MAT[136:])
    assert mask.shape == (20, 30)
    assert plain.count(sbd_segmentation().tobytes("F")) == 1
    packed = zlib.compress(plain.replace(sbd_segmentation().tobytes("F"), mask.tobytes("F")))
    return SBD_MAT[:128] + struct.pack("<II", 15, len(packed)) + packed


def jpeg(index: int, size: tuple[int, int] = SIZE, **options: object) -> bytes:
    """A photograph; every fourth one is encoded alike."""
    buffer = io.BytesIO()
    photo(index, size).save(buffer, "JPEG", **(options or JPEGS[index % len(JPEGS)]))
    return buffer.getvalue()


def palette_png(index: int, size: tuple[int, int] = SIZE, num_classes: int = 21) -> bytes:
    """A mask as VOC has them: palette, with 255 at the borders."""
    return indexed_png(labels(index, size, num_classes), VOC)


def grey_png(mask: Image.Image) -> bytes:
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return buffer.getvalue()


def png(depth: int, colour: int, raw: bytes, size: tuple[int, int] = SIZE) -> bytes:
    """A PNG of any kind, by hand: Pillow cannot write 16-bit colours."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", head),
            chunk(b"IDAT", zlib.compress(raw)),
            chunk(b"IEND", b""),
        )
    )


def put(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def devkit(folder: Path) -> Path:
    """VOCdevkit as unpacked: own masks of t0 t1 (training) and v0 v1; photographs of more."""
    voc = folder / "VOCdevkit/VOC2012"
    names = ("t0", "t1", "v0", "v1", "s0", "s1", "unlisted")
    for index, name in enumerate(names):
        put(voc / f"JPEGImages/{name}.jpg", jpeg(index))
    for index, name in enumerate(names[:4]):
        put(voc / f"SegmentationClass/{name}.png", palette_png(index))
        put(voc / f"SegmentationObject/{name}.png", palette_png(index))
    put(voc / "ImageSets/Segmentation/train.txt", "t0\nt1\n")
    put(voc / "ImageSets/Segmentation/val.txt", "v0\nv1\n")
    put(voc / "ImageSets/Main/train.txt", "t0 1\n")
    put(voc / "Annotations/t0.xml", "<annotation/>")
    return folder / "VOCdevkit"


def sbd(folder: Path) -> Path:
    """benchmark_RELEASE as unpacked: s0 s1, and t0 v0 that VOC has masks of, too."""
    dataset = folder / "benchmark_RELEASE/dataset"
    for index, name in enumerate(("s0", "s1", "t0", "v0")):
        put(dataset / f"cls/{name}.mat", sbd_mat(np.roll(sbd_segmentation(), index, axis=1)))
        put(dataset / f"inst/{name}.mat", b"")
        put(dataset / f"img/{name}.jpg", jpeg(index + 10))
    put(dataset / "train.txt", "s0\nt0\n")
    put(dataset / "val.txt", "s1\nv0\n")
    return folder / "benchmark_RELEASE"


def merged_voc(folder: Path) -> Path:
    """A tree as the README of UniMatch has it: grey masks, no lists."""
    for index, name in enumerate(("t0", "t1", "v0", "v1", "s0", "s1")):
        put(folder / f"JPEGImages/{name}.jpg", jpeg(index))
        put(folder / f"SegmentationClass/{name}.png", grey_png(labels(index, SIZE, 21)))
    return folder


def cityscapes(folder: Path, kind: str = "labelIds") -> Path:
    """Both archives as unpacked, of label ids or of train ids."""
    for index, name in enumerate(("train/jena/jena_0_0", "train/ulm/ulm_1_0", "val/bonn/bonn_2_0")):
        image = photo(index, SIZE)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        put(folder / f"leftImg8bit/{name}_leftImg8bit.png", buffer.getvalue())
        count = 34 if kind == "labelIds" else 19
        values = np.asarray(labels(index, SIZE, count)).copy()
        values[values == 255] = 0 if kind == "labelIds" else 255
        put(folder / f"gtFine/{name}_gtFine_{kind}.png", grey_png(Image.fromarray(values)))
        put(folder / f"gtFine/{name}_gtFine_color.png", buffer.getvalue())
        put(folder / f"gtFine/{name}_gtFine_polygons.json", "{}")
    put(folder / "leftImg8bit/test/berlin/berlin_0_leftImg8bit.png", b"not needed")
    return folder


def voc_lists(root: Path, labelled: str = "t0 s0", unlabelled: str = "t1 s1") -> None:
    """Lists of one's own called `mine`."""
    for name, ids in (("mine/labeled", labelled), ("mine/unlabeled", unlabelled), ("val", "v0 v1")):
        lines = "".join(f"{line_of(VOC, name)}\n" for name in ids.split())
        put(root / f"splits/{name}.txt", lines)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its time and bytes."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
