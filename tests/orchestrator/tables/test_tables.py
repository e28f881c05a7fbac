"""Tables: what is filled in, and how it prints."""

import csv
import io
import sys
from dataclasses import replace
from statistics import fmean, stdev

import pytest
from rich.console import Console

from orchestrator.printers.csv import table_csv
from orchestrator.printers.markdown import markdown
from orchestrator.printers.terminal import terminal
from orchestrator.printers.write import write_filled
from orchestrator.results.counted import Today, differences
from orchestrator.statistics.compare import comparisons
from orchestrator.tables.fill import fill
from orchestrator.tables.filled import Mark
from orchestrator.tables.text import signed
from sweeps.table import load_table
from tests.support.result_rows import DRAWN_TABLE, row_of

SMALL = """
title: A small table
corner: Data
cell: {recipe: synthetic, backbone: resnet14_w8, crop: 64}
columns: {split: [1of16, 1of8]}
labels: {1of16: 1/16}
notes: [Made by hand.]
blocks:
  - label: "64"
    rows:
      - label: Supervised
        cell: {method: supervised, loss: none}
        published: [61.2, 67.3]
        source: X
      - {label: CAC, source: CAC paper, published: [70.1, null]}
      - {label: "UniMatch*", cell: {method: unimatch_star, loss: none}, published: [73.3, 74.8]}
      - {label: IPixMatch, cell: {method: unimatch_star, loss: kl}, published: [74.5, 74.9]}
      - {label: Improvement, minus: [IPixMatch, "UniMatch*"], published: [1.2, 0.1]}
"""

GOLDEN = (
    "**A small table. mIoU (%) at the best epoch, seed 12345.** Bold: best; underlined: second; "
    "italics: difference; in brackets: the paper's value and ours minus the paper's.\n"
    r"""
| Data |  | 1/16 | 1of8 |
| :-- | :-- | --: | --: |
| Supervised | 64 | 61.0 (61.2, -0.2) | 67.3 (67.3, 0.0) |
| CAC <sup>q</sup> | 64 | 70.1 | - |
| UniMatch\* | 64 | <u>73.0</u> (73.3, -0.3) | 75.0 (74.8, +0.2) |
| IPixMatch | 64 | **74.2** (74.5, -0.3) | -- (74.9) |
| Improvement | 64 | *+1.2* (+1.2) | *--* (+0.1) |

Made by hand.

<sup>q</sup> quoted as the paper prints it, not run here. CAC: CAC paper.

Published values that the paper itself took over: Supervised: X.

-- cells without a result: 1 of 6 (1 failed).

Ours: git commit 0123456789, torch version 2.13.0, device cpu, world size 1.
"""
)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return load_table(str(path))


def rows_of(table, values, **fields):
    return [row_of(c, v, **fields) for c, v in zip(table.cells, values, strict=True)]


@pytest.fixture
def rows(table):
    return rows_of(table, [61.0, 67.32, 73.04, 75.0, 74.23, None])


def find(filled, label):
    return next(row.entries for row in filled.rows if row.row.label == label)


def test_the_markdown_of_a_small_table_is_the_golden_one(table, rows):
    assert markdown(fill(table, rows)) == GOLDEN


def test_the_improvement_is_taken_before_rounding(table, rows):
    (first, second) = find(fill(table, rows), "Improvement")

    assert first.mean == 74.23 - 73.04
    assert second.mean is None


def test_best_and_second_compete_with_quoted_rows_once_a_column_is_complete(table, rows):
    filled = fill(table, rows)

    ranks = {row.row.label: [entry.rank for entry in row.entries] for row in filled.rows}

    assert ranks == {
        "Supervised": [None, None],
        "CAC": [None, None],
        "UniMatch*": [2, None],
        "IPixMatch": [1, None],
        "Improvement": [None, None],
    }


def test_a_row_of_unknown_data_does_not_make_rows_of_different_data_comparable(table, rows):
    known = [None, None, "a" * 64, None, "b" * 64, None]
    mixed = [replace(row, data_fingerprint=data) for row, data in zip(rows, known, strict=True)]

    filled = fill(table, mixed)

    assert all(entry.rank is None for row in filled.rows for entry in row.entries)


def test_other_first_weights_are_neither_averaged_nor_compared(table):
    files = {("none", 1): "a", ("none", 2): "a", ("none", 3): "a", ("kl", 3): "b"}
    cells = [c for c in table.cells if c.method == "unimatch_star" and c.split == "1of16"]
    rows = [
        row_of(replace(c, seed=s), 70.0 + s, pretrained_sha256=files.get((c.loss, s), "a") * 64)
        for c in cells
        for s in (1, 2, 3)
    ]

    filled = fill(table, rows)

    ours, gain = find(filled, "IPixMatch")[0], find(filled, "Improvement")[0]
    assert (ours.values, [row.seed for row in ours.apart]) == ((71.0, 72.0), [3])
    assert len(gain.values) == 2
    assert "seed 3: 73.0 (other first weights)" in markdown(filled)
    other = [replace(row, pretrained_sha256="c" * 64) for row in rows if row.loss == "kl"]
    ours = find(fill(table, [*other, *(r for r in rows if r.loss == "none")]), "IPixMatch")[0]
    base = find(fill(table, rows), "UniMatch*")[0]
    assert ours.paired(base) == {}


def test_values_that_print_alike_share_a_place(table):
    filled = fill(table, rows_of(table, [61, 67, 73.04, 75, 73.01, 74]))

    assert find(filled, "IPixMatch")[0].rank == find(filled, "UniMatch*")[0].rank == 1


def test_table_1_compares_along_its_rows_and_averages_the_gains():
    table = load_table("table1")

    filled = fill(table, rows_of(table, [70.0, 71.0, 70.5, 60.0, 59.0, 60.75]))

    ranks = [[entry.rank for entry in row.entries] for row in filled.rows]
    means = [entry.mean for entry in find(filled, "Average improvement")]
    assert ranks == [[None, 1, 2], [2, None, 1], [None] * 3]
    assert means == [None, 0.0, 0.625]
    assert "| Average improvement | - | *0.00* (+0.80) | *+0.62* (+0.19) |" in markdown(filled)


def test_seeds_give_mean_sample_deviation_and_improvement_seed_by_seed(table):
    rows = []
    for seed, star, ours in ((1, 70.0, 71.0), (2, 72.0, 72.5), (3, 71.0, 73.0)):
        by_loss = {"none": star, "kl": ours}
        cells = [replace(c, seed=seed) for c in table.cells if c.method == "unimatch_star"]
        rows += [row_of(cell, by_loss[cell.loss]) for cell in cells]

    filled = fill(table, rows)

    entry, gain = find(filled, "UniMatch*")[0], find(filled, "Improvement")[0]
    assert (entry.mean, entry.spread) == (71.0, stdev([70, 72, 71]))
    assert gain.values == (1.0, 0.5, 2.0)
    assert (gain.mean, gain.spread) == (fmean(gain.values), stdev(gain.values))
    assert "mean and sample deviation over n = 3 seeds (1, 2, 3)" in markdown(filled)
    assert "| UniMatch\\* | 64 | 71.0 ±1.0 (73.3, -2.3) |" in markdown(filled)


def test_one_seed_prints_no_spread(table, rows):
    assert "±" not in markdown(fill(table, rows))


def test_an_entry_of_fewer_seeds_is_marked(table, rows):
    more = [replace(row, seed=1) for row in rows[:3]]

    filled = fill(table, rows + more)

    assert find(filled, "Supervised")[0].marks == ()
    assert find(filled, "IPixMatch")[0].marks == (Mark.FEWER_SEEDS,)
    text = markdown(filled)
    assert "| IPixMatch | 64 | **74.2** <sup>n=1</sup> (74.5, -0.3) |" in text
    assert "<sup>n</sup> the number of seeds, where it is less than 2." in text


def test_a_row_is_compared_with_one_of_each_likeness_and_not_with_all_seeds(table, rows):
    odd, comparisons_made = replace(rows[0], seed=0, config_json='{"optim":{"lr":1}}'), []
    more = [odd, *(replace(row, seed=seed) for row in rows for seed in range(1, 41))]

    def count(frame, event, argument):
        if event == "call" and frame.f_code is differences.__code__:
            comparisons_made.append(frame)

    sys.setprofile(count)
    try:
        filled = fill(table, more)
    finally:
        sys.setprofile(None)

    assert len(comparisons_made) <= 2 * len(more)
    assert len(find(filled, "Supervised")[0].results) == 40
    assert find(filled, "Supervised")[0].apart == (odd,)


def test_only_the_seeds_asked_for_count(table, rows):
    more = [replace(row, seed=1) for row in rows]

    assert fill(table, rows + more, seeds=[1]).seeds == (1,)
    assert find(fill(table, rows + more, seeds=[1]), "IPixMatch")[0].results == (more[4],)


def test_the_last_epoch_is_printed_on_demand_and_the_caption_says_so(table, rows):
    filled = fill(table, rows, epoch="last")

    assert find(filled, "Supervised")[0].mean == 60.0
    assert "mIoU (%) at the last epoch" in markdown(filled)


def test_a_drifted_result_is_marked_and_still_printed(table, rows):
    today = {row.key: Today(row.fingerprint) for row in rows} | {rows[2].key: Today("0" * 64)}

    filled = fill(table, rows, today=today)

    drifted = [row.row.label for row in filled.rows if Mark.DRIFTED in row.entries[0].marks]
    assert drifted == ["UniMatch*", "Improvement"]
    assert "| UniMatch\\* | 64 | <u>73.0</u> <sup>d</sup> (73.3, -0.3) |" in markdown(filled)
    assert "<sup>d</sup> ran with another configuration, other first weights, images" in markdown(
        filled
    )


def test_seeds_of_different_configurations_are_kept_apart(table, rows):
    text = '{"optim":{"epochs":2},"run":{"device":"cpu"},"seed":%d}'
    same = [replace(row, config_json=text % row.seed) for row in rows]
    elsewhere = [
        replace(row, seed=1, config_json=(text % 1).replace('"cpu"', '"cuda"')) for row in same
    ]
    other = [replace(row, config_json=row.config_json.replace("2}", "3}")) for row in elsewhere]

    assert find(fill(table, same + elsewhere), "Supervised")[0].marks == ()
    entry = find(fill(table, same + other), "Supervised")[0]
    assert entry.marks == (Mark.MIXED, Mark.FEWER_SEEDS)
    assert (entry.values, entry.apart) == ((61.0,), (same[0],))


def test_a_table_of_several_commits_devices_and_dirty_checkouts_says_so(table, rows):
    changed = replace(rows[0], git_commit="fedcba9876543210", device="cuda", git_dirty=True)

    text = markdown(fill(table, [changed, *rows[1:]]))

    assert (
        "Mixed: ours come from 2 git commits (0123456789, fedcba9876), 2 devices (cpu, cuda)"
        in text
    )
    assert "with changes that were not committed: 1." in text


def test_only_the_newest_done_attempt_of_a_cell_counts(table, rows):
    again = replace(rows[0], attempt=2, best_miou_percent=62.0)
    failed = row_of(rows[0].cell, attempt=3)

    assert find(fill(table, [again, failed, *rows]), "Supervised")[0].results == (again,)


def test_an_empty_table_prints_the_paper_and_no_number_of_ours():
    text = markdown(fill(load_table("table3"), []))

    assert "-- cells without a result: 36 of 36." in text
    assert "| IPixMatch | 321 | -- (74.5) |" in text
    assert "**7" not in text


def test_a_table_of_no_paper_prints_no_paper_column():
    table = load_table(DRAWN_TABLE)

    text = markdown(fill(table, rows_of(table, [50.0 + i for i in range(16)])))

    assert "paper" not in text
    assert "| Supervised | 50.0 | 51.0 | 52.0 | 53.0 |" in text


def test_the_csv_leads_every_entry_back_to_its_runs(table, rows):
    lines = list(csv.DictReader(io.StringIO(table_csv(fill(table, rows)))))

    ours = lines[4]
    assert len(lines) == 10
    assert (ours["row"], ours["column"], ours["kind"]) == ("UniMatch*", "1of16", "ours")
    assert float(ours["ours"]) == 73.04
    assert float(ours["difference"]) == 73.04 - 73.3
    assert ours["keys"] == rows[2].key
    assert ours["weights_sha256"] == "b" * 64
    assert ours["git_commits"] == "0123456789abcdef"
    assert lines[2]["source"] == "CAC paper"
    assert lines[7]["n"] == "0"


def test_the_terminal_shows_ours_above_the_papers(table, rows):
    console = Console(width=110, record=True, file=io.StringIO())

    console.print(terminal(fill(table, rows)))

    text = console.export_text()
    assert "IPixMatch     64        74.2          --" in text
    assert "74.5 -0.3        74.9 " in text
    assert "q quoted as the paper prints it" in text


@pytest.mark.parametrize("name", ["seamless", "drawn_methods"])
def test_every_method_is_compared_with_itself_without_the_inter_pixel_loss(name):
    table = load_table(name)
    scores = {"none": 70.0, "kl": 71.5, "cr": 69.75}
    cells = [replace(cell, seed=seed) for cell in table.cells for seed in (1, 2, 3)]

    filled = fill(table, [row_of(cell, scores[cell.loss]) for cell in cells])

    gains = {
        block.label: [row.entries[0].mean for row in block.rows if row.row.kind == "difference"]
        for block in filled.blocks
    }
    assert gains.pop("Supervised") == []
    assert set(map(tuple, gains.values())) == {(1.5, -0.25)}
    printed = [c for c in comparisons(filled) if c.is_main]
    assert [(c.block, c.new, c.rival) for c in printed] == [
        (label, new, "alone") for label in gains for new in ("with KL", "with CR")
    ]
    assert {c.n for c in printed} == {3 * len(table.columns)}


def test_a_quoted_row_that_is_trained_prints_the_quoted_value_beside_ours_everywhere(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "every.yaml").write_text(
        "{extends: small.yaml, reruns: {CAC: {cell: {method: mt_cutmix, loss: none}}}}"
    )
    table = load_table(str(tmp_path / "every.yaml"))
    filled = fill(table, rows_of(table, [61.0, 67.3, 71.0, 72.0, 73.0, 75.0, 74.2, 74.8]))

    written = {path.suffix: path.read_text() for path in write_filled([filled], tmp_path)[:4]}
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(terminal(filled))
    (line,) = [r for r in csv.DictReader(io.StringIO(written[".csv"])) if r["ours"] == "71.0"]

    assert "| CAC | 64 | 71.0 (70.1, +0.9) | 72.0 |" in written[".md"]
    assert "took over: Supervised: X; CAC: CAC paper." in written[".md"]
    assert r"\color{gray}70.1 (+0.9)}" in written[".tex"]
    assert "70.1" in written[".html"]
    assert (line["paper"], line["source"]) == ("70.1", "CAC paper")
    assert "70.1 +0.9" in console.export_text()


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0"), (-0.04, "0.0"), (0.06, "+0.1"), (-1.25, "-1.2")]
)
def test_a_difference_has_a_sign_unless_it_prints_as_zero(value, text):
    assert signed(value, 1) == text


def test_tables_are_written_whole_as_markdown_latex_and_csv(table, rows, tmp_path):
    out = tmp_path / "tables"

    for _ in range(2):
        paths = write_filled([fill(t, rows) for t in (table, load_table(DRAWN_TABLE))], out)

    kinds = (".md", ".tex", ".csv", ".html", "_numbers.tex", "_statistics.md", "_statistics.csv")
    assert [path.name for path in paths] == [
        f"{name}{kind}" for name in ("small", "drawn_table") for kind in kinds
    ]
    assert (out / "small.md").read_text() == GOLDEN
    assert sorted(out.iterdir()) == sorted(paths)


def test_classes_that_no_validation_mask_shows_are_named_below(table, rows):
    zero = [replace(row, absent_classes=("rare",), absent_rule="zero") for row in rows]
    skip = [replace(row, absent_rule="skip") for row in zero]

    for chosen, text in ((zero, "counted as 0 in the mIoU"), (skip, "left out of the mIoU")):
        printed = markdown(fill(table, chosen))
        assert f"synthetic 1of16, synthetic 1of8: no validation mask shows rare: {text}" in printed


def test_rows_of_the_released_track_are_named_below(table, rows):
    text = '{"method":{"track":"released"},"seed":12345}'
    released = [replace(row, config_json=text) for row in rows]

    assert "track=released" not in markdown(fill(table, rows))
    assert "track=released, network, optimiser, augmentation" in markdown(fill(table, released))
