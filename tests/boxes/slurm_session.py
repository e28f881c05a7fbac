"""Fixtures of the Slurm box; a conftest imports the ones it offers."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.boxes.slurm import BoxError, SlurmBox, what_is_missing

_PREFIX = "slurm-"


@contextmanager
def running_box(**options: int) -> Iterator[SlurmBox]:
    """A cluster whose clients this process and its children are, until the block ends."""
    missing = what_is_missing()
    if missing:
        raise BoxError(missing)
    # In memory: a start takes 2 s instead of 5, since the daemons fsync.
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() else Path(tempfile.gettempdir())
    _sweep(place)
    parent = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
    (Path(parent) / "owner").write_text(str(os.getpid()))
    box = SlurmBox(Path(parent) / "box", **options)
    try:
        box.up()
        os.environ.update(box.env())
        yield box
    finally:
        os.environ.pop("SLURM_CONF", None)
        box.down()
        shutil.rmtree(parent, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Delete the folders of boxes whose process was killed; their daemons died with it."""
    for owner in place.glob(f"{_PREFIX}*/owner"):
        if not Path("/proc", owner.read_text()).exists():
            shutil.rmtree(owner.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm_box() -> Iterator[SlurmBox]:
    """One cluster with accounting for all tests."""
    with running_box() as box:
        yield box


@pytest.fixture
def bare_cluster() -> Iterator[SlurmBox]:
    """A cluster without accounting that sends a preempted job nothing but SIGTERM."""
    with running_box(accounting=False, warns=False) as box:
        yield box


@pytest.fixture
def cluster(slurm_box: SlurmBox) -> Iterator[SlurmBox]:
    """The cluster, healthy and empty before and after a test."""
    os.environ.update(slurm_box.env())
    yield slurm_box
    slurm_box.heal()
