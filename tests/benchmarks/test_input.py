"""The benchmark of the input pipeline runs, on a few small files."""

from pathlib import Path

import pytest

from benchmarks.input.__main__ import measured, printed, variants
from benchmarks.input.files import Kind
from datasets.images import png

SMALL = Kind("small", (60, 44), "png", 9.0, 5, 32, 4)


def test_every_variant_is_measured_and_stands_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder = png.decoder

    todo = variants(SMALL, tmp_path)
    times = measured(todo, rounds=2, steps=1)
    printed(SMALL, times)

    table = capsys.readouterr().out
    assert len(todo) == 10
    assert all(len(values) == 2 for values in times.values())
    assert all(f"| {name} | " in table for name in todo)
    assert png.decoder is decoder  # "Pillow alone" puts back what it takes away
