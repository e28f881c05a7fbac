"""What `make` does for somebody who has just cloned the project."""

import os
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sweeps.grid import load_grid
from tests.support.lab import CHECKOUT

INSTALL = runpy.run_path(str(CHECKOUT / ".ci/install.py"))
TABLE = """
title: Two methods
corner: Drawn
cell: {recipe: synthetic, backbone: resnet14_w8, crop: 32, method: unimatch_star}
columns: {split: [1of2]}
blocks:
  - rows:
      - {label: "UniMatch*", cell: {loss: none}}
      - {label: IPixMatch, cell: {loss: kl}}
      - {label: Improvement, minus: [IPixMatch, "UniMatch*"]}
"""


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """Run make with the packages of these tests: nothing is installed."""
    given = ["make", "READY=", f"BIN={Path(sys.executable).parent}", *words]
    # Under `make test` it would say which folder it enters and leaves.
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    own = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(given, cwd=CHECKOUT, env=own, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_the_demo_says_how_long_and_ends_with_table_pictures_and_report(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TABLE)
    sizes = "data.drawn.num_train=24, data.drawn.num_val=4, optim.epochs=1"
    settings = f"overrides: [{sizes}, data.root={tmp_path}/drawn]\ncore_minutes: 3"
    (tmp_path / "grid.yaml").write_text(f"title: Two\ntables: [two.yaml]\n{settings}\n")

    done = make("demo", f"GRID={tmp_path}/grid.yaml backend=inline", f"ROOT={tmp_path}/out")

    assert done.returncode == 0, done.stdout + done.stderr
    _, start, rest = done.stdout.partition("Two: 2 cells to run, about 3 minutes on 1 idle core\n")
    assert start
    _, table, files = rest.partition("Improvement")
    assert table
    *_, pictures, page, _, _ = files.splitlines()
    assert [pictures, page] == [
        f"{tmp_path}/out/reports/grid{end}" for end in ("-two.png", ".html")
    ]
    assert Path(pictures).is_file()
    assert Path(page).is_file()


def test_the_demo_prepares_what_its_cells_train_on() -> None:
    published = {cell.recipe for cell in load_grid("demo").cells} - {"synthetic"}

    shown = make("--dry-run", "demo").stdout

    for recipe in published | {"earth"}:
        assert f"python -m datasets prepare {recipe}" in shown
    assert "python -m orchestrator launch demo root=outputs/demo" in shown


def test_of_what_pip_says_the_large_parts_are_shown() -> None:
    short = INSTALL["short"]

    assert short("Collecting torch==2.13.0 (from ipixmatch-grid==0.1.0)\n") == ""
    assert short("  Downloading click-8.5.1-py3-none-any.whl (102 kB)\n") == ""
    assert (
        short(
            "  Downloading https://host/whl/torch-2.13.0%2Bcpu-cp311-cp311-linux.whl (176.3 MB)\n"
        )
        == "downloading torch 2.13.0+cpu (176.3 MB)"
    )
    assert short("  Using cached ray-2.60.0-cp311-cp311-any.whl (72.1 MB)\n") == (
        "using cached ray 2.60.0 (72.1 MB)"
    )
    assert short("Installing collected packages: mpmath, torch\n") == "unpacking 2 packages"


def test_an_installation_ends_with_its_length_and_a_failed_one_with_what_pip_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wheel = tmp_path / "tiny_part-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_part.py", "")
        about = "Metadata-Version: 2.1\nName: tiny-part\nVersion: 1.0\n"
        archive.writestr("tiny_part-1.0.dist-info/METADATA", about)
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr("tiny_part-1.0.dist-info/WHEEL", kind)
        archive.writestr("tiny_part-1.0.dist-info/RECORD", "")
    here, where = Path(sys.executable).parents[1], ["--no-index", "--target", str(tmp_path / "to")]

    assert INSTALL["install"](here, [*where, str(wheel)]) == 0
    assert (tmp_path / "to/tiny_part.py").is_file()
    lines = capfd.readouterr().out.splitlines()
    assert lines[-2] == "  unpacking 1 packages"
    assert lines[-1].startswith("  installed in ")

    assert INSTALL["install"](here, [*where, "tiny-part==2.0"]) == 1
    printed = capfd.readouterr()
    assert "pip failed after" in printed.out
    assert "No matching distribution found for tiny-part==2.0" in printed.err
