"""The paper's tables as typed, and tables of one's own."""

import pytest

from sweeps.table import TABLE_FOLDER, load_table
from tests.support.paper_numbers import PRINTED, rows

TABLES = sorted(path.stem for path in TABLE_FOLDER.glob("*.yaml"))
OWN = """
title: Mine
cell: {recipe: synthetic, method: unimatch_star, crop: 64, backbone: resnet14_w8}
columns: {split: [1of16, 1of8]}
blocks:
  - rows:
      - {label: A, cell: {loss: none}, published: [1, null]}
      - {label: B, cell: {loss: kl}}
      - {label: Gain, minus: [B, A]}
"""


def typed(name):
    return [row.published for row in load_table(name).rows]


@pytest.mark.parametrize("name", sorted(PRINTED))
def test_published_numbers_are_those_of_the_paper(name):
    assert typed(name) == rows(name)


def test_all_212_printed_numbers_are_there():
    # Every number in the bodies of Tables I to V, improvements and averages too, heads and
    # labels not: 8 + 18 + 72 + 64 + 50. A printed dash is null and does not count.
    counts = [sum(v is not None for row in typed(f"table{i}") for v in row) for i in range(1, 6)]

    assert counts == [8, 18, 72, 64, 50]
    assert sum(counts) == 212


@pytest.mark.parametrize("name", sorted(PRINTED))
def test_printed_improvements_follow_from_the_printed_scores(name):
    table = load_table(name)
    step = 10**-table.decimals  # the paper subtracts before it rounds
    for block in table.blocks:
        printed = {row.label: row.published for row in block.rows}
        for row in block.rows:
            if row.minus:
                new, base = (printed[label] for label in row.minus)
                gaps = [a - b for a, b in zip(new, base, strict=True)]
                assert row.published == pytest.approx(gaps, abs=step * 1.01)


def test_the_average_of_table_1_follows_from_its_rows():
    first, second, average = load_table("table1").rows

    for column in (1, 2):
        gains = [row.published[column] - row.published[0] for row in (first, second)]
        assert average.published[column] == pytest.approx(sum(gains) / 2, abs=0.0051)
    assert average.baseline == 0


def test_table_2_and_table_3_print_the_same_runs():
    warm = {}
    for row in load_table("table2").rows:
        warm |= dict(zip(row.cells, row.published, strict=bool(row.cells)))
    block = load_table("table3").blocks[1]
    (row,) = (row for row in block.rows if row.label == "IPixMatch")

    for cell, published in zip(row.cells, row.published, strict=True):
        assert warm[cell] == pytest.approx(published, abs=0.051)


def test_a_row_is_ours_quoted_or_derived():
    kinds = {row.label: row.kind for row in load_table("table3").rows}

    assert kinds == {
        "Supervised Baseline": "ours",
        "CAC": "quoted",
        "CPS": "quoted",
        "U²PL": "quoted",
        "PS-MT": "quoted",
        "UniMatch*": "ours",
        "IPixMatch": "ours",
        "Improvement": "difference",
    }


def test_every_quoted_row_names_its_source():
    quoted = {n: [r for r in load_table(n).rows if r.kind == "quoted"] for n in TABLES}

    assert sum(len(quoted[name]) for name in PRINTED) == 14
    assert all(row.source for rows in quoted.values() for row in rows)


def test_the_demo_has_no_published_number():
    assert not load_table("demo").is_published


def test_a_table_of_ones_own_is_given_as_a_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)

    table = load_table(str(path))

    assert table.name == "mine"
    assert len(table.cells) == 4
    assert next(table.rows).published == (1.0, None)


EXTENDED = """
extends: base.yaml
notes: [Trained here.]
reruns:
  CPS: {cell: {method: cps, loss: none}}
  PC²Seg: {label: PC²Seg-style, cell: {method: cps, loss: kl}}
"""
QUOTED = """
      - {label: CPS, source: CPS paper, note: on other lists., published: [2, 3]}
      - {label: PC²Seg, source: PC2Seg paper, published: [4, null]}
      - {label: ST++, source: ST++ paper, published: [5, 6]}
"""


def extended(folder, text=EXTENDED):
    (folder / "base.yaml").write_text(OWN + QUOTED)
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_table_that_extends_another_trains_its_quoted_rows_beside_their_numbers(tmp_path):
    table = load_table(str(extended(tmp_path)))
    rows = {row.label: row for row in table.rows}

    assert table.name == "mine"
    assert (table.title, table.notes) == ("Mine", ("Trained here.",))
    assert {label: row.kind for label, row in rows.items()} == {
        "A": "ours",
        "B": "ours",
        "Gain": "difference",
        "CPS": "ours",
        "PC²Seg-style": "ours",
        "ST++": "quoted",
    }
    assert [cell.key for cell in rows["CPS"].cells] == [
        "synthetic.1of16.resnet14_w8.c64.cps.none.s12345",
        "synthetic.1of8.resnet14_w8.c64.cps.none.s12345",
    ]
    assert rows["CPS"].published == (2.0, 3.0)
    assert rows["CPS"].source == "CPS paper"
    assert rows["CPS"].note == "quoted value, on other lists."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("CPS:", "CSP:", r"reruns: no quoted row is called 'CSP'; there are CPS, PC²Seg, ST\+\+"),
        ("CPS:", "A:", "reruns: no quoted row is called 'A'"),
        ("cell: {method: cps, loss: none}", "label: x", r"reruns \('CPS'\): 'cell' is missing"),
        ("method: cps", "methd: cps", r"reruns \('CPS'\): cell: unknown axis 'methd'"),
        ("label: PC²Seg-style", "source: x", r"reruns \('PC²Seg'\): unknown key 'source'"),
        ("notes:", "blocks:", "unknown key 'blocks'"),
        ("base.yaml", "other.yaml", r"There is no table file .*other\.yaml"),
        ("base.yaml", "mine.yaml", "extends a table that itself extends one"),
    ],
)
def test_a_mistake_in_an_extension_is_answered_with_place_and_cure(tmp_path, old, new, message):
    path = extended(tmp_path, EXTENDED.replace(old, new, 1))

    with pytest.raises(ValueError, match=message) as error:
        load_table(str(path))

    assert str(path.parent) in str(error.value)


@pytest.mark.parametrize("name", ["table3", "table4", "table5"])
def test_a_table_of_all_rows_prints_the_numbers_of_the_paper_and_runs_its_cells_too(name):
    base, every = load_table(name), load_table(f"{name}_all")

    assert [row.published for row in every.rows] == [row.published for row in base.rows]
    assert [row.source for row in every.rows] == [row.source for row in base.rows]
    assert set(base.cells) < set(every.cells)
    assert every.originals == base.originals
    pairs = [(a, b) for a, b in zip(base.rows, every.rows, strict=True) if a != b]
    assert {(a.kind, b.kind) for a, b in pairs} == {("quoted", "ours")}
    assert not [row.label for row in every.rows if row.kind == "quoted"]


def test_an_unknown_table_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"Unknown table 'table9'; known: demo, .*table1, .*table5"
    ):
        load_table("table9")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[1, null]", "[1]", r"row 1 \('A'\): 1 published value for 2 columns; write null"),
        ("[1, null]", "[1, x]", "'x' is no published value; write a number or null"),
        ("minus: [B, A]", "minus: [B, C]", r"row 3: no row above is called 'C'; there are \['A'"),
        ("minus: [B, A]", "minus: [B]", "minus takes two labels"),
        ("label: B", "label: A", "row 2: the label 'A' stands twice"),
        ("loss: kl", "los: kl", "unknown axis 'los'. Did you mean 'loss'"),
        ("loss: kl", "split: 1of8", r"row 2 \('B'\): split is an axis of the columns"),
        ("crop: 64, ", "", r"row 1 \('A'\): a cell needs crop too; add it to the cell"),
        ("crop: 64", "crop: big", "crop is a number of pixels such as 321, not 'big'"),
        ("[1of16, 1of8]", "[1_16, 1of8]", "split is a name .* not '1_16'"),
        ("[1of16, 1of8]", "[1of16, 1of16]", "columns: split lists a value twice"),
        ("cell: {loss: kl}", "note: x", "give it a `cell` to run, `minus` two rows"),
        ("title: Mine", "titel: Mine", "unknown key 'titel'. Did you mean 'title'"),
        ("title: Mine", "", "'title' is missing; add it"),
        ("title: Mine", "title: Mine\ntitle: Yours", "line 3: 'title' stands twice; keep one"),
        ("  - rows:", "  - row:", "block 1: unknown key 'row'. Did you mean 'rows'"),
        ("title: Mine", "title: [", r"is no valid YAML: .* \(line \d, column \d\)\.$"),
        ("title: Mine", "title:\n\t- x", r"YAML: a tab as indent \(line 3, column 1\)\.$"),
        ("title: Mine", "title:", "title: expected a text, found nothing"),
        ("cell: {loss: kl}", "cell: {loss: kl}, published: [.nan, 1]", "nan is no published value"),
        ("title: Mine", "title: Mine\nbest: up", "best: expected down or across, found 'up'"),
        (
            "title: Mine",
            "title: Mine\nreplicates: seeds",
            "replicates: expected columns, or leave it out, found 'seeds'",
        ),
        ("title: Mine", "title: Mine\ndecimals: two", "decimals: expected a number of digits"),
    ],
)
def test_a_mistake_is_answered_with_file_place_and_cure(tmp_path, old, new, message):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.replace(old, new, 1))

    with pytest.raises(ValueError, match=message) as error:
        load_table(str(path))

    assert str(path) in str(error.value)
