"""Fixtures of the Slurm box; a conftest imports the ones it offers."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.slurm.cluster import BoxError, SlurmBox, what_is_missing

_PREFIX = "slurm-"
_ROOM_BYTES = 500 * 2**20  # Docker gives /dev/shm 64 MB; a box takes 110


@contextmanager
def running_box(**options: int) -> Iterator[SlurmBox]:
    """A cluster whose clients this process and its children are, until the block ends."""
    missing = what_is_missing()
    if missing:
        raise BoxError(missing)
    folder = _box_folder()
    sweep(folder)
    parent = tempfile.mkdtemp(prefix=_PREFIX, dir=folder)
    owner = (Path(parent) / "owner").open("w")
    fcntl.flock(owner, fcntl.LOCK_EX)  # the kernel gives it back, however this process ends
    box = SlurmBox(Path(parent) / "box", **options)
    try:
        box.up()
        os.environ.update(box.env())
        yield box
    finally:
        os.environ.pop("SLURM_CONF", None)
        box.down()
        shutil.rmtree(parent, ignore_errors=True)
        owner.close()


def _box_folder() -> Path:
    """In memory: a start takes 2 s instead of 5, since the daemons fsync."""
    memory, disk = Path("/dev/shm"), Path(tempfile.gettempdir())
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_BYTES
    return memory if has_room else disk


def sweep(folder: Path) -> None:
    """Delete the folders of boxes whose process was killed; their daemons died with it."""
    for path in folder.glob(f"{_PREFIX}*/owner"):
        with path.open() as owner:
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(path.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm_box() -> Iterator[SlurmBox]:
    """One cluster with accounting for all tests."""
    with running_box() as box:
        yield box


@pytest.fixture(scope="session")
def bare_slurm_box() -> Iterator[SlurmBox]:
    """One cluster without accounting that sends a preempted job nothing but SIGTERM."""
    with running_box(accounting=False, warns=False) as box:
        yield box


@pytest.fixture
def bare_cluster(bare_slurm_box: SlurmBox) -> Iterator[SlurmBox]:
    """That cluster, healthy and empty before and after a test."""
    os.environ.update(bare_slurm_box.env())
    yield bare_slurm_box
    bare_slurm_box.heal()


@pytest.fixture
def cluster(slurm_box: SlurmBox) -> Iterator[SlurmBox]:
    """The cluster, healthy and empty before and after a test."""
    os.environ.update(slurm_box.env())
    yield slurm_box
    slurm_box.heal()
