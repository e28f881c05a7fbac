import subprocess
import sys
from pathlib import Path

import datasets
from datasets.import_guard import check_is_ours

OURS = Path(__file__).resolve().parents[2] / "datasets"


def test_our_package_is_ours() -> None:
    check_is_ours()

    assert Path(datasets.__file__).parent == OURS


def test_a_foreign_package_mixed_with_ours_is_refused(tmp_path) -> None:
    foreign = tmp_path / "datasets"
    foreign.mkdir()
    # What an editable install gives: their package, our submodules.
    (foreign / "__init__.py").write_text(f"__path__.append({str(OURS)!r})")
    probe = "from datasets.import_guard import check_is_ours; check_is_ours()"

    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert f"foreign package `datasets` ({foreign})" in done.stderr
    assert f"Start from the checkout ({OURS.parent})" in done.stderr
