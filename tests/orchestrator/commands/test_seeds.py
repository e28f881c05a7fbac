"""Seeds until settled: blocks of seeds, the stated design, and what happens to a killed launch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.commands.seeds import launch_until_settled, next_block, stated_block
from orchestrator.options import LaunchOptions
from orchestrator.planning.plan import EXIT_DONE, EXIT_UNFINISHED, LaunchRequest, State
from orchestrator.results.seed_design import design_for, stated_design
from orchestrator.results.store import publish
from orchestrator.storage.local_root import LocalRoot
from sweeps.cell import Cell
from tests.support.lab import KL, Lab, kill_all
from tests.support.result_rows import row_of

GRID = """
title: Three losses
tables: [losses.yaml]
seeds: [7, 2]
"""
TABLE = """
title: Three losses
cell: {recipe: synthetic, backbone: resnet14_w8, crop: 64, method: unimatch_star}
columns: {split: [1of16, 1of8]}
blocks:
  - rows:
      - {label: Alone, cell: {loss: none}}
      - {label: CR, cell: {loss: cr}}
      - {label: KL, cell: {loss: kl}}
      - {label: KL over Alone, minus: [KL, Alone]}
"""
SEEDS = (7, 2, 1, 3, 4, 5)  # the grid's own, then the next that it lacks


def score(cell: Cell) -> float:
    """KL is far above Alone with every seed."""
    return {"kl": 60.0, "cr": 55.0, "none": 50.0 - SEEDS.index(cell.seed)}[cell.loss]


class Killed(Exception):
    """The end of a launch in the middle of a block."""


class Trainings:
    """Publishes scores instead of training, and stops after some of them."""

    def __init__(self, most: int = 1000) -> None:
        self.left = most
        self.keys: list[str] = []

    def __call__(self, request: LaunchRequest) -> int:
        for planned in request.chosen(request.plan()):
            if self.left == 0:
                raise Killed
            self.left -= 1
            self.keys.append(planned.key)
            cell = Cell.parse(planned.key)
            publish(request.root, row_of(cell, score(cell), fingerprint=planned.fingerprint))
        return EXIT_DONE


@pytest.fixture
def request_(tmp_path: Path) -> LaunchRequest:
    (tmp_path / "losses.yaml").write_text(TABLE)
    (tmp_path / "tiny.yaml").write_text(GRID)
    options = LaunchOptions(seeds="auto", max_seeds=6)
    root = LocalRoot(tmp_path / "out")
    return LaunchRequest(str(tmp_path / "tiny.yaml"), root, options)


def launched(request: LaunchRequest, run: Callable[[LaunchRequest], int]) -> list[str]:
    lines: list[str] = []
    assert launch_until_settled(request, run, lines.append) == EXIT_DONE
    return lines


def test_a_killed_launch_goes_on_and_only_open_comparisons_run_further_seeds(
    request_: LaunchRequest,
) -> None:
    killed, again = Trainings(18), Trainings()

    with pytest.raises(Killed):  # in the second block
        launched(request_, killed)
    stated = stated_design(request_.root, "tiny")
    lines = launched(request_, again)

    keys = killed.keys + again.keys
    assert len(keys) == len(set(keys)) == 20
    runs = [cell for cell in map(Cell.parse, keys) if cell.split == "1of8"]
    assert {x: [c.seed for c in runs if c.loss == x] for x in ("none", "kl", "cr")} == {
        "none": [7, 2, 1, 3],
        "kl": [7, 2, 1, 3],
        "cr": [7, 2],  # in no comparison: as the grid says
    }
    assert stated is not None
    assert stated.seeds == SEEDS
    assert stated == stated_design(request_.root, "tiny")
    assert lines[0] == "losses: 1 comparison at 5% in all, at most 6 seeds, looks after 3, 4, 5, 6"
    assert lines[-1].endswith("4 of 6 planned seeds; settled at look 2.")


def test_the_design_is_stated_before_the_first_cell_and_another_one_is_refused(
    request_: LaunchRequest,
) -> None:
    def run(request: LaunchRequest) -> int:
        assert stated_design(request.root, "tiny") is not None
        return EXIT_UNFINISHED

    assert launch_until_settled(request_, run, print) == EXIT_UNFINISHED
    before = stated_design(request_.root, "tiny")
    options = request_.options

    for changed, text in (
        (replace(request_, options=replace(options, max_seeds=7)), "max_seeds or seeds: 6 .* -> 7"),
        (replace(request_, options=replace(options, epoch="last")), "epoch: best -> last"),
        (replace(request_, overrides=("optim.lr=0.5",)), "configuration"),
    ):
        with pytest.raises(ValueError, match=text):
            launched(changed, Trainings())
    Path(request_.grid).with_name("losses.yaml").write_text(
        TABLE.replace("[KL, Alone]", "[KL, CR]")
    )
    with pytest.raises(ValueError, match="tables"):
        launched(request_, Trainings())

    assert stated_design(request_.root, "tiny") == before


def test_without_max_seeds_the_stated_number_counts(request_: LaunchRequest) -> None:
    unsaid = replace(request_, options=replace(request_.options, max_seeds=0))
    assert len(next_block(unsaid).design.seeds) == 8

    stated_block(request_)

    assert next_block(unsaid) == next_block(request_)


def test_results_older_than_the_design_are_refused(request_: LaunchRequest) -> None:
    fixed = replace(request_, options=LaunchOptions())
    planned = next(cell for cell in fixed.plan().cells if ".kl." in cell.key)
    cell = Cell.parse(planned.key)
    publish(request_.root, row_of(cell, 50.0, fingerprint=planned.fingerprint))

    with pytest.raises(ValueError, match="the design is younger than 1 result") as error:
        launched(request_, Trainings())

    assert planned.key in str(error.value)
    assert stated_design(request_.root, "tiny") is None


@pytest.mark.parametrize("word", ["only", "rerun"])
def test_cells_are_not_chosen_by_hand_as_well(word: str, request_: LaunchRequest) -> None:
    values = {"only": "*kl*", "rerun": "all"}
    options = replace(request_.options, **{word: values[word]})

    with pytest.raises(ValueError, match=f"{word}=.* with seeds=auto"):
        next_block(replace(request_, options=options))


def test_a_grid_that_compares_nothing_is_refused(request_: LaunchRequest) -> None:
    table = "\n".join(line for line in TABLE.splitlines() if "minus" not in line)
    Path(request_.grid).with_name("losses.yaml").write_text(table)

    with pytest.raises(ValueError, match="no table of tiny compares two rows"):
        next_block(request_)


def test_other_settings_or_another_epoch_are_printed_without_a_test(
    request_: LaunchRequest,
) -> None:
    stated_block(request_)
    plan = replace(request_, options=LaunchOptions()).plan()

    covered = design_for(plan.root, plan.grid, plan.today, "best")
    assert covered == stated_design(request_.root, "tiny")
    for design in (
        design_for(plan.root, plan.grid, plan.today, "last"),
        design_for(plan.root, plan.grid, {}, "best"),
    ):
        assert design is not None
        assert design.tables == {}


def test_a_broken_design_is_named(request_: LaunchRequest) -> None:
    request_.root.results("designs").put("tiny.json", b'{"alpha": 0.05}')

    with pytest.raises(ValueError, match=r"tiny\.json is no design of seeds"):
        next_block(request_)


def test_cells_with_another_state_of_the_data_are_no_pairs_and_end_the_launch(
    request_: LaunchRequest,
) -> None:
    def run(request: LaunchRequest) -> int:
        for planned in request.chosen(request.plan()):
            cell = Cell.parse(planned.key)
            data = "a" * 64 if cell.loss == "kl" else "b" * 64
            prints = {"fingerprint": planned.fingerprint, "data_fingerprint": data}
            publish(request.root, row_of(cell, score(cell), **prints))
        return EXIT_DONE

    with pytest.raises(ValueError, match="some cannot be paired"):
        launched(request_, run)


def test_a_budget_ends_a_block_of_seeds_and_a_larger_one_goes_on(lab: Lab) -> None:
    lab.write_grid(("unimatch_star", "none"), ("unimatch_star", "kl"))
    words = ("seeds=auto", "max_seeds=6", "backend=inline")

    first = lab.run("launch", *words, "budget=0.01s", code=EXIT_UNFINISHED)
    second = lab.run("launch", *words, "budget=100h")

    assert "budget=0.01s leaves the rest" in first
    assert "looks after 3, 4, 5, 6" in second
    assert "6 done of 6 cells" in second
    assert "3 of 6 planned seeds; stopped as futile at look 1" in second


@pytest.mark.ray
def test_a_real_launch_is_killed_goes_on_and_its_tables_say_how_it_ended(lab: Lab) -> None:
    lab.write_grid(("unimatch_star", "none"), ("unimatch_star", "kl"))
    words = ("seeds=auto", "max_seeds=6", "backend=inline")
    launch = lab.start("launch", *words)
    lab.worker_at(KL, step=1)
    kill_all(launch)
    stated = stated_design(lab.opened, "tiny")

    refused = lab.run("launch", *words, "max_seeds=7", code=2)
    text = lab.run("launch", "seeds=auto", "backend=ray")
    tables = lab.run("tables", "seeds=auto")

    assert "max_seeds or seeds: 6" in refused
    assert "looks after 3, 4, 5, 6" in text
    assert "of 6 planned seeds" in text
    assert "of 6 planned seeds" in tables
    assert stated is not None
    assert stated == stated_design(lab.opened, "tiny")
    rows = lab.rows()
    assert {row.status for row in rows.values()} == {"done"}
    assert {row.seed for row in rows.values()} >= {12345, 1, 2}
    states = lab.states("seeds=auto")
    assert set(states.values()) == {State.done.value}
    assert states.keys() == rows.keys()
