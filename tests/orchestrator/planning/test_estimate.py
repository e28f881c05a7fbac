"""How long a cell takes, for methods that exist today and for those to come."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.launch import announcement
from orchestrator.options import LaunchOptions
from orchestrator.planning.estimate import seconds_together, shares, work
from orchestrator.planning.plan import PlannedCell, make_plan
from orchestrator.results.store import publish
from orchestrator.storage.local_root import LocalRoot
from sweeps.grid import load_grid
from tests.support.result_rows import row_of
from tests.support.tiny_config import tiny_config
from trainer.config.compose import compose
from trainer.method_registry import METHODS, MethodFacts


def test_a_new_method_is_estimated_by_its_own_number_of_passes(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "twice", MethodFacts("nowhere.Twice", passes=8.0))

    twice, once = (
        work(tiny_config(tmp_path, f"method.algorithm={name}")) for name in ("twice", "unimatch")
    )

    assert twice == 2 * once


def test_a_network_of_fixed_size_is_estimated_by_its_measured_cost() -> None:
    small, light, deep = (
        work(compose([f"model={name}"]))
        for name in ("resnet14_w16", "efficientnet_lite0", "resnet50")
    )

    assert 2 * small < light < deep


CELLS = """
- base: {recipe: synthetic, backbone: resnet14_w8, crop: 32, split: n10}
  zip: {method: [supervised_star, unimatch_star, unimatch_star], loss: [none, none, kl]}
"""


@pytest.fixture
def measured(tmp_path: Path) -> str:
    """A grid whose three cells took two minutes of a core together."""
    path = tmp_path / "measured.yaml"
    path.write_text(f"title: Three cells\ncore_minutes: 2\ncells: {CELLS}")
    return str(path)


def planned(grid: str, root: Path, **words: Any) -> tuple[PlannedCell, ...]:
    return make_plan(grid, LocalRoot(root), **words).cells


def test_what_a_grid_measured_is_divided_by_work(measured: str, tmp_path: Path) -> None:
    cells = planned(measured, tmp_path)

    configs = {cell.key: cell.config for cell in cells}
    assert {cell.key: cell.seconds for cell in cells} == shares(configs, 120.0)
    assert sum(cell.seconds or 0.0 for cell in cells) == pytest.approx(120.0)
    (first,) = planned(measured, tmp_path, only="*supervised*")
    assert first.seconds == cells[0].seconds


def test_with_other_settings_the_measured_time_says_nothing(measured: str, tmp_path: Path) -> None:
    cells = planned(measured, tmp_path, overrides=["optim.epochs=99"])

    assert [cell.seconds for cell in cells] == [None, None, None]


def test_a_done_cell_here_says_more_than_the_grid(measured: str, tmp_path: Path) -> None:
    root, cell = LocalRoot(tmp_path), planned(measured, tmp_path)[1]
    facts = {"fingerprint": cell.fingerprint, "config_json": cell.config_json}
    publish(root, row_of(load_grid(measured).cells[1], 50.0, seconds=7.0, **facts))

    seconds = [cell.seconds for cell in planned(measured, tmp_path)]

    assert seconds[1:] == [7.0, 7.0]


def test_cells_together_take_as_long_as_the_slot_that_ends_last() -> None:
    assert seconds_together([1.0, 3.0, 2.0, 2.0], 2) == 4.0
    assert seconds_together([5.0, 1.0], 2) == 5.0
    assert seconds_together([1.0, 2.0], 1) == 3.0
    assert seconds_together([1.0], 4) == 1.0


def test_a_launch_says_at_its_start_what_comes_and_for_how_long(
    measured: str, tmp_path: Path
) -> None:
    cells = planned(measured, tmp_path)
    other = planned(measured, tmp_path, overrides=["optim.epochs=99"])

    def text(of: tuple[PlannedCell, ...], **options: Any) -> str:
        return announcement("Three cells", of, LaunchOptions(**options))

    assert text(cells, backend="inline") == (
        "Three cells: 3 cells to run, about 2 minutes on 1 idle core"
    )
    assert text(cells, concurrency=1).startswith("Three cells: 3 cells to run, about 2 minutes on ")
    one_after_the_other = "Three cells: 3 cells to run, about 2 minutes of work one after the other"
    assert text(cells, backend="slurm") == one_after_the_other
    assert text(cells, ray_address="auto") == one_after_the_other
    assert text(other) == "Three cells: 3 cells to run"
    assert text(cells[:1], backend="inline").startswith("Three cells: 1 cell to run, about ")
