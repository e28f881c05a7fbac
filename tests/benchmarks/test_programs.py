"""Every program that measures can still be started: what it imports is there."""

from importlib import import_module
from pathlib import Path

import pytest

import benchmarks

PROGRAMS = sorted(path.stem for path in Path(benchmarks.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_program_imports_exists(name: str) -> None:
    import_module(f"benchmarks.{name}")
