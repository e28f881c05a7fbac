"""Grids: the paper's, and those a person writes."""

from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sweeps.cell import Cell
from sweeps.grid import grid_names, load_grid, with_seeds
from sweeps.table import load_table
from tests.support.result_rows import DRAWN_TABLE

BASE = {"recipe": "synthetic", "backbone": "resnet14_w8", "crop": 64, "method": "unimatch_star"}


def load(folder, **spec):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"title": "Mine", **spec}))
    return load_grid(str(path))


def test_the_paper_is_exactly_100_cells():
    sizes = {name: len(load_grid(name).cells) for name in grid_names() if name != "demo"}

    assert sizes == {
        "drawings": 40,  # 5 methods x 8 drawings
        "drawn_methods": 111,  # (1 + 12 methods x 3) x 3 seeds
        "earth": 95,  # (6 rows x 3 splits + all labels) x 5 seeds
        "paper": 100,
        "paper_all": 169,
        "seamless": 74,  # (1 + 12 methods x 3) x 2 splits
        "table1": 6,
        "table2": 12,
        "table3": 36,
        "table4": 30,
        "table5": 24,
    }


def test_the_paper_is_the_union_of_its_tables_in_their_order():
    tables = [load_table(name) for name in load_grid("paper").tables]
    every = [cell for table in tables for cell in table.cells]

    assert load_grid("paper").cells == tuple(dict.fromkeys(every))
    assert len(every) == 108  # 2 cells of Table I and 6 of Table II are also in III and IV


def test_the_paper_has_the_axes_the_paper_names():
    cells = load_grid("paper").cells

    assert {c.crop for c in cells if c.recipe == "cityscapes"} == {801}
    assert {c.crop for c in cells if c.split.startswith("p2_")} == {321}
    assert {c.crop for c in cells if c.method == "supervised"} == {321, 513, 801}
    assert {c.loss for c in cells if c.method == "supervised"} == {"none"}
    assert {c.seed for c in cells} == {12345}


def test_paper_all_adds_the_quoted_rows_to_the_cells_of_the_paper():
    paper, every = load_grid("paper"), load_grid("paper_all")

    assert set(paper.cells) < set(every.cells)
    assert {c.seed for c in every.cells} == {12345}
    assert not every.overrides
    added = set(every.cells) - set(paper.cells)
    assert {c.method for c in added} == {
        "ael",
        "cac",
        "cps",
        "pc2seg_style",
        "ps_mt",
        "st_plusplus",
        "u2pl",
    }
    assert {c.loss for c in added} == {"none"}


def test_the_demo_says_how_long_it_takes_and_compares_ipixmatch_with_unimatch():
    grid = load_grid("demo")

    assert grid.core_minutes is not None
    rows = {row.label: row for name in grid.tables for row in load_table(name).rows}
    pairs = [row.minus for row in rows.values() if row.minus]
    compared = {tuple(rows[label].cells[0].loss for label in pair) for pair in pairs}
    assert compared & {("kl", "none"), ("cr", "none")}
    assert {rows[label].cells[0].method for pair in pairs for label in pair} >= {"unimatch_star"}


def test_every_drawn_method_runs_alone_with_kl_and_with_cr_on_a_drawing_nobody_tuned_on():
    grid = load_grid("drawn_methods")
    losses: dict[str, list[str]] = {}
    for cell in with_seeds(grid, [1]).cells:
        losses.setdefault(cell.method, []).append(cell.loss)

    assert losses.pop("supervised_star") == ["none"]
    assert {tuple(values) for values in losses.values()} == {("none", "kl", "cr")}
    assert {"data.drawn.seed=1", "data.drawn.num_val=200"} < set(grid.overrides)


def test_product_crosses_and_zip_walks_in_step(tmp_path):
    product = {"loss": ["none", "kl"]}
    grid = load(
        tmp_path,
        cells=[
            {
                "base": {k: BASE[k] for k in ("recipe", "method")},
                "product": product,
                "zip": {"split": ["1of8", "1of4"], "crop": [64, 96], "backbone": ["a", "b"]},
            }
        ],
    )

    assert [(c.loss, c.split, c.crop, c.backbone) for c in grid.cells] == [
        ("none", "1of8", 64, "a"),
        ("none", "1of4", 96, "b"),
        ("kl", "1of8", 64, "a"),
        ("kl", "1of4", 96, "b"),
    ]


@given(
    splits=st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), min_size=1, unique=True),
    losses=st.lists(st.sampled_from(["none", "kl", "cr"]), min_size=2, unique=True),
)
def test_exclude_takes_away_what_it_names_and_nothing_else(tmp_path_factory, splits, losses):
    entry = {"base": BASE, "product": {"split": splits, "loss": losses}}
    folder = tmp_path_factory.mktemp("grid")

    everything = set(load(folder, cells=[entry]).cells)
    kept = set(load(folder, cells=[entry | {"exclude": [{"loss": losses[0]}]}]).cells)

    assert everything - kept == {cell for cell in everything if cell.loss == losses[0]}


def test_a_grid_grows_without_moving_what_was_there(tmp_path):
    entry = {"base": BASE, "product": {"split": ["1of8"], "loss": ["none", "kl"]}}
    more = {"base": BASE, "product": {"split": ["1of4"], "loss": ["none"]}}

    before = load(tmp_path, tables=[DRAWN_TABLE], cells=[entry]).cells
    after = load(tmp_path, tables=[DRAWN_TABLE], cells=[entry, more]).cells

    assert after[: len(before)] == before
    assert len(after) == len(before) + 1


def test_the_first_seed_fills_every_table_before_the_next(tmp_path):
    grid = load(tmp_path, tables=[DRAWN_TABLE], seeds=[3, 1])

    assert [cell.seed for cell in grid.cells] == [3] * 16 + [1] * 16
    assert grid.seeds == (3, 1)


def test_with_seeds_changes_nothing_but_seeds():
    grid = with_seeds(load_grid("demo"), [7, 8])

    assert {replace(cell, seed=12345) for cell in grid.cells} == set(load_grid("demo").cells)
    assert len(grid.cells) == 2 * len(load_grid("demo").cells)


def test_a_table_path_counts_from_the_folder_of_the_grid(tmp_path):
    source = (load_table.__globals__["TABLE_FOLDER"] / "demo.yaml").read_text()
    (tmp_path / "own.yaml").write_text(source)

    grid = load(tmp_path, tables=["own.yaml"])

    assert grid.tables == (str(tmp_path / "own.yaml"),)
    assert load_table(grid.tables[0]).cells == grid.cells


def test_an_unknown_grid_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown grid 'papper'; known: demo, .*paper, .*table1"):
        load_grid("papper")


ENTRY = {"base": BASE, "product": {"split": ["1of8"], "loss": ["none", "kl"]}}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "a grid without cells; give it `tables` or `cells`"),
        ({"table": ["demo"]}, "unknown key 'table'. Did you mean 'tables'"),
        ({"tables": "demo"}, "tables: expected a list of texts, found 'demo'"),
        ({"tables": ["demo", "demo"]}, "tables: 'demo' stands twice"),
        ({"tables": ["nine"]}, "Unknown table 'nine'; known: demo"),
        ({"tables": ["demo"], "seeds": [1, 1]}, "seeds: 1 stands twice"),
        ({"tables": ["demo"], "seeds": ["x"]}, "a seed is a whole number from 0 on, not 'x'"),
        ({"tables": ["demo"], "seeds": []}, "seeds: expected a list"),
        ({"tables": ["demo"], "overrides": {"a": 1}}, "overrides: expected a list of texts"),
        ({"tables": ["demo"], "overrides": ["a.b=1", "+a.b=2"]}, "overrides: 'a.b' stands twice"),
        ({"tables": ["demo"], "core_minutes": 0}, "core_minutes: expected minutes above 0"),
        ({"tables": ["demo"], "core_minutes": "5"}, "expected minutes above 0, found '5'"),
        ({"cells": [ENTRY, ENTRY]}, r"entry 2: synthetic\.1of8\..* is already in entry 1"),
        ({"cells": [ENTRY | {"product": {"los": ["kl"]}}]}, "unknown axis 'los'. Did you mean"),
        ({"cells": [ENTRY | {"product": {"loss": "kl"}}]}, "product: loss: expected a list"),
        ({"cells": [ENTRY | {"product": {"loss": ["kl"]}}]}, "a cell needs split too"),
        ({"cells": [ENTRY | {"zip": {"loss": ["kl"]}}]}, "entry 1: 'loss' stands twice"),
        ({"cells": [ENTRY | {"exclude": [{"loss": "cr"}]}]}, "fits no cell here"),
        ({"cells": [ENTRY | {"base": BASE | {"seed": 1}}]}, "seeds are no axis; write `seeds:"),
        ({"cells": [ENTRY | {"base": BASE | {"crop": "64"}}]}, "crop is a number of pixels"),
        (
            {"cells": [{"base": BASE, "zip": {"loss": ["kl", "cr"], "split": ["1of8"]}}]},
            r"different lengths \(loss 2, split 1\)",
        ),
    ],
)
def test_a_mistake_is_answered_with_file_place_and_cure(tmp_path, spec, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **spec)


def test_a_cell_in_a_table_and_in_the_list_runs_once(tmp_path):
    entry = {"base": BASE, "product": {"split": ["1of8"], "loss": ["kl"]}}

    grid = load(tmp_path, tables=[DRAWN_TABLE], cells=[entry])

    assert len(grid.cells) == 16
    assert Cell(**BASE, split="1of8", loss="kl") in grid.cells
