import pytest
import yaml

from sweeps.grid import load_grid
from sweeps.grid_tables import tables_of

BASE = {"recipe": "synthetic", "backbone": "resnet14_w8", "crop": 32}


@pytest.fixture
def load(tmp_path):
    def load(**spec):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"title": "Mine", **spec}))
        return load_grid(str(path))

    return load


def cells(method, loss, **axes):
    product = {"method": method, "loss": loss, **axes}
    return [{"base": BASE, "product": product}]


@pytest.mark.parametrize("name", ["paper", "demo", "table5"])
def test_a_grid_of_named_tables_has_just_these(name):
    grid = load_grid(name)

    assert [table.name for table in tables_of(grid)] == list(grid.tables)


def test_listed_cells_make_a_plain_table_methods_down_and_the_rest_across(load):
    grid = load(cells=cells(["unimatch_star"], ["none", "kl"], split=["n10", "1of8"]), seeds=[1, 2])

    (table,) = tables_of(grid)

    assert table.heads() == (("n10", "1of8"),)
    assert [row.label for row in table.rows] == [
        "unimatch_star",
        "unimatch_star + kl",
        "unimatch_star + kl, gain",
    ]
    assert [row.kind for row in table.rows] == ["ours", "ours", "difference"]
    assert [cell.split for cell in next(table.rows).cells] == ["n10", "1of8"]


def test_cells_that_fill_no_rectangle_are_listed_line_by_line(load):
    listed = cells(["supervised", "fixmatch"], ["none"], split=["n10", "1of8"])
    listed[0]["exclude"] = [{"method": "fixmatch", "split": "n10"}]

    (table,) = tables_of(load(cells=listed))

    assert [row.label for row in table.rows] == [
        "n10 supervised",
        "1of8 supervised",
        "1of8 fixmatch",
    ]
    assert table.cells == load(cells=listed).cells


def test_cells_beside_a_named_table_get_a_table_of_their_own(load):
    more = [{"base": BASE, "product": {"method": ["fixmatch"], "loss": ["none"], "split": ["n10"]}}]

    tables = tables_of(load(tables=["demo"], cells=more))

    assert [table.name for table in tables] == ["demo", "mine"]
    assert [cell.method for cell in tables[1].cells] == ["fixmatch"]
