"""Any setting is an axis of a grid or a table, and YAML values are what people mean."""

import pytest

from datasets.known.yaml_values import load_yaml
from sweeps.cell import Cell, axis_text
from sweeps.cell_configs import cell_configs
from sweeps.grid import load_grid
from sweeps.grid_tables import tables_of
from sweeps.table import load_table

BASE = "{recipe: synthetic, split: 1of4, backbone: resnet14_w8, crop: 64, method: fixmatch_star"
ENTRY = f"cells:\n  - base: {BASE}, loss: kl}}\n"


def grid_of(folder, text):
    """A grid with these lines."""
    (folder / "mine.yaml").write_text(f"title: Mine\n{text}")
    return load_grid(str(folder / "mine.yaml"))


def test_a_product_of_alpha_is_a_cell_for_each_value(tmp_path):
    grid = grid_of(tmp_path, ENTRY + "    product: {loss.alpha: [0.1, 1.0, 1e-4]}\n")

    configs = cell_configs(grid.cells)

    assert [cell.loss for cell in grid.cells] == ["kl+alpha@0p1", "kl+alpha@1", "kl+alpha@0p0001"]
    assert [config.loss.alpha for config in configs.values()] == [0.1, 1.0, 0.0001]
    assert all(config.key == cell.key for cell, config in configs.items())
    assert all(Cell.parse(cell.key) == cell for cell in grid.cells)


@pytest.mark.parametrize(
    ("setting", "values", "read"),
    [
        ("optim.lr", "[0.01, 1e-3]", lambda c: c.optim.lr),
        ("method.confidence", "[0.7, 0.95]", lambda c: c.method.confidence),
        ("method.ema_decay", "[0.9, 0.999]", lambda c: c.method.ema_decay),
        ("optim.epochs", "[010, 2]", lambda c: c.optim.epochs),
        ("loss.inside_half", "[true, false]", lambda c: c.loss.inside_half),
        ("model.width", "[8, 16]", lambda c: c.model.width),
        ("optim.weight_decay", "[1e-4, 0]", lambda c: c.optim.weight_decay),
        ("data.drawn.seed", "[3, 4]", lambda c: c.data.drawn.seed),
    ],
)
def test_every_kind_of_setting_can_be_swept(tmp_path, setting, values, read):
    grid = grid_of(tmp_path, ENTRY + f"    product: {{{setting}: {values}}}\n")

    configs = cell_configs(grid.cells)

    assert [read(config) for config in configs.values()] == load_yaml(values)
    assert len({config.key for config in configs.values()}) == 2
    assert all(Cell.parse(cell.key) == cell for cell in grid.cells)


def test_settings_of_several_groups_are_in_the_key_in_one_order(tmp_path):
    one = "    zip: {optim.lr: [0.1], loss.alpha: [2], loss.warmup_epochs: [0]}\n"
    other = "    product: {loss.warmup_epochs: [0], loss.alpha: [2.0], optim.lr: [0.1]}\n"

    cells = grid_of(tmp_path, ENTRY + one).cells

    assert cells == grid_of(tmp_path, ENTRY + other).cells
    assert cells[0].key == (
        "synthetic+optim-lr@0p1.1of4.resnet14_w8.c64.fixmatch_star.kl+alpha@2+warmup_epochs@0.s12345"
    )


def test_the_generated_table_names_the_values_and_exclude_knows_them(tmp_path):
    product = "    product: {loss.alpha: [0.1, 1, 5]}\n    exclude: [{loss.alpha: 5}]\n"

    (table,) = tables_of(grid_of(tmp_path, ENTRY + product))

    assert [row.label for row in table.rows] == [
        "fixmatch_star + kl, alpha=0.1",
        "fixmatch_star + kl, alpha=1",
    ]
    assert axis_text("synthetic+optim-lr@1e-05") == "synthetic, optim.lr=1e-05"


def test_a_table_has_a_column_for_each_value(tmp_path):
    path = tmp_path / "alphas.yaml"
    rows = "blocks: [{rows: [{label: 1.50, cell: {loss: kl}}, {label: no, cell: {loss: cr}}]}]\n"
    path.write_text(f"title: 2012\ncell: {BASE}}}\ncolumns: {{loss.alpha: [0.1, 1.0]}}\n{rows}")

    table = load_table(str(path))

    assert table.heads() == (("0.1", "1.0"),)
    assert [row.label for row in table.rows] == ["1.50", "no"]
    assert [cell.loss for cell in table.cells] == [
        *("kl+alpha@0p1", "kl+alpha@1", "cr+alpha@0p1", "cr+alpha@1")
    ]


@pytest.mark.parametrize(
    ("axis", "labels", "heads"),
    [
        ("loss.alpha: [1e-4, 1, -0.0]", "{1e-4: tiny, 1.0: one, 0: off}", ("tiny", "one", "off")),
        ("loss.alpha: [0.1, 10]", '{0.10: a tenth, "010": ten}', ("a tenth", "ten")),
        ("loss.inside_half: [true, false]", '{true: half, "*": any}', ("half", "False")),
    ],
)
def test_a_label_belongs_to_a_value_however_both_are_typed(tmp_path, axis, labels, heads):
    path = tmp_path / "table.yaml"
    path.write_text(
        f"title: T\ncell: {BASE}, loss: kl}}\ncolumns: {{{axis}}}\nlabels: {labels}\n"
        "blocks: [{rows: [{label: Ours, cell: {}}]}]\n"
    )

    assert load_table(str(path)).heads() == (heads,)


@pytest.mark.parametrize(
    ("product", "message"),
    [
        ("{loss.alhpa: [1]}", "Unknown setting 'loss.alhpa'. Did you mean loss.alpha"),
        ("{loss.alpha: [a/b]}", "loss.alpha takes numbers and names, not 'a/b'"),
        ("{loss.alpha: [[1, 2]]}", "loss.alpha takes numbers and names, not"),
        ("{loss.alpha: [1, 1.0]}", "is already in entry|stands twice"),
        ("{data.crop: [64]}", "Write 'crop' in a grid"),
        ("{loss.alpha: [much]}", "loss.alpha"),
        ("{alpha: [1]}", "such as loss.alpha"),
        ("{optim.epochs: [10, 1_0]}", "'1_0'; write the number plainly"),
        ("{loss.alpha: ['010']}", "'010'; write the number plainly"),
        (f"{{data.root: [{'x' * 150}]}}", "files are named after it; at most"),
    ],
)
def test_an_axis_that_cannot_be_is_refused(tmp_path, product, message):
    with pytest.raises(ValueError, match=message):
        cell_configs(grid_of(tmp_path, ENTRY + f"    product: {product}\n").cells)


def test_an_override_of_a_swept_setting_is_refused(tmp_path):
    grid = grid_of(tmp_path, ENTRY + "    product: {loss.alpha: [1]}\n")

    with pytest.raises(ValueError, match=r"change loss\.alpha in the grid"):
        cell_configs(grid.cells, ["loss.alpha=3"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("010", 10), ("0", 0), ("-007", -7), ("0x1F", 31), ("0o10", 8), ("1_16", "1_16")),
        *(("1e-4", 0.0001), ("1E5", 1e5), ("5e-4", 0.0005), (".5", 0.5), ("1.", 1.0), ("+1", 1)),
        *(("no", "no"), ("on", "on"), ("true", True), ("~", None), ("", None), ("y", "y")),
        *(("1:30", "1:30"), ("2012-01-01", "2012-01-01"), ("'010'", "010"), ("1.2.3", "1.2.3")),
    ],
)
def test_yaml_values_are_what_people_mean(text, value):
    loaded = load_yaml(text)

    assert (type(loaded), loaded) == (type(value), value)


@pytest.mark.parametrize("text", ["? [a, b]\n: 1", "{a: 1}: 2", "&a [*a]", "a: &b {c: [*b]}"])
def test_a_yaml_tree_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)

    with pytest.raises(ValueError, match=r"mine\.yaml is no valid YAML: a"):
        load_grid(str(tmp_path / "mine.yaml"))


def test_a_seed_written_010_is_ten(tmp_path):
    assert grid_of(tmp_path, "seeds: [010, 08]\n" + ENTRY).seeds == (10, 8)


def test_a_label_is_one_line_that_can_be_printed(tmp_path):
    assert grid_of(tmp_path, ENTRY).title == "Mine"
    (tmp_path / "a.yaml").write_text('title: "a\\n\\n b"\n' + ENTRY)
    (tmp_path / "b.yaml").write_text('title: "a\\e[0m"\n' + ENTRY)

    assert load_grid(str(tmp_path / "a.yaml")).title == "a b"
    with pytest.raises(ValueError, match=r"title: .* cannot be printed"):
        load_grid(str(tmp_path / "b.yaml"))
