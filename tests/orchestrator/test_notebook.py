"""The door for notebooks: tables to look at, rows and epochs as data frames."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.notebook import GridResults, load_grid
from orchestrator.results.row import HISTORY_SCHEMA, SCHEMA
from orchestrator.storage.local_root import LocalRoot
from sweeps.grid import load_grid as cells_of
from tests.support.report_results import publish_drawn
from tests.support.result_rows import DRAWN

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    publish_drawn(LocalRoot(folder), folder)
    return folder


@pytest.fixture(scope="module")
def results(root: Path) -> GridResults:
    return load_grid(DRAWN, str(root))


def test_a_table_is_had_by_place_and_by_name(results: GridResults) -> None:
    table = results.table(1)

    assert str(table) == str(results.table("drawn_table"))
    assert "IPixMatch (KL)" in str(table)
    assert "<table" in table._repr_html_()
    assert table.latex().startswith("% needs")
    frame = table.frame()
    assert len(frame) == 5 * 4  # rows and columns of the table
    kl = frame[(frame["row"] == "IPixMatch (KL)") & (frame["column"] == "resnet14_w8 n10")]
    assert kl["n"].item() == 2  # seeds


def test_an_unknown_table_is_answered_with_those_there_are(results: GridResults) -> None:
    with pytest.raises(ValueError, match=r"has no table 3; known: 1 \(drawn_table\)"):
        results.table(3)


def test_rows_are_those_that_count_or_every_attempt(results: GridResults) -> None:
    cells = cells_of(DRAWN).cells
    counted, every = results.rows(), results.rows(every_attempt=True)

    # Two seeds of every cell, and the failed attempt of one at a third seed.
    assert sorted(counted["status"]) == ["done"] * 2 * len(cells) + ["failed"]
    assert len(every) == len(counted)
    assert {"best_miou_percent", "weights_sha256", "git_commit"} <= set(counted.columns)


def test_an_epoch_has_the_axes_of_its_cell(results: GridResults) -> None:
    history = results.history()

    assert len(history) == 3 * 2 * len(cells_of(DRAWN).cells)
    assert history.groupby(["method", "loss"])["miou_percent"].max().notna().all()


def test_a_question_in_sql_has_a_frame_as_its_answer(results: GridResults) -> None:
    answer = results.query("SELECT method, count(*) AS cells FROM counted GROUP BY ALL ORDER BY 1")

    assert list(answer.columns) == ["method", "cells"]
    assert answer["cells"].sum() == len(results.rows())


def test_cells_have_their_state_and_settings_change_it(root: Path, results: GridResults) -> None:
    cells = results.cells()
    drifted = load_grid(DRAWN, str(root), settings=["only=*.s12345", "optim.epochs=99"]).cells()

    assert set(cells["state"]) == {"failed", "missing"}  # results are of other seeds
    assert len(drifted) == len(cells)
    with pytest.raises(ValueError, match="Unknown setting"):
        load_grid(DRAWN, str(root), settings=["optim.epoch=1"])


def test_a_table_needs_neither_pandas_nor_torch(root: Path) -> None:
    probe = (
        "import sys; from orchestrator.notebook import load_grid;"
        f"load_grid({DRAWN!r}, {str(root)!r}).table()._repr_html_();"
        "sys.exit(bool({'pandas', 'torch', 'ray'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", probe], cwd=CHECKOUT, check=False).returncode == 0


def test_the_page_describes_every_column() -> None:
    page = (CHECKOUT / "docs" / "results.md").read_text()
    names = {*SCHEMA.names, *HISTORY_SCHEMA.names}

    assert {name for name in names if f"`{name}`" not in page} == set()


def test_the_code_of_the_page_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = (CHECKOUT / "docs" / "results.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    block = block.replace('"paper", root="outputs"', f"{DRAWN!r}, root={str(root)!r}")
    names: dict[str, object] = {}

    exec(block.replace("table(3)", "table(1)"), names)

    assert names["gain"] is not None
