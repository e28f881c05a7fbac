"""Every program that measures can still be started: what it imports is there."""

from importlib import import_module
from pathlib import Path

import pytest

import benchmarks

ROOM = Path(benchmarks.__file__).parent
PROGRAMS = sorted(
    ".".join(path.relative_to(ROOM).with_suffix("").parts) for path in ROOM.rglob("*.py")
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_program_imports_exists(name: str) -> None:
    import_module(f"benchmarks.{name}")
