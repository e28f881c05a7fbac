"""The charts: what is drawn, in which words, and that the same numbers give the same bytes."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestrator.__main__ import main
from orchestrator.planning.plan import make_plan
from orchestrator.report.charts import (
    Bar,
    BarChart,
    LineChart,
    Point,
    Series,
    charts,
    class_panels,
    method_names,
    panels,
    series_of,
)
from orchestrator.report.data import EpochFacts, gather
from orchestrator.report.plots import COLOURS, figure_of, file_content, inline_svg, ticks_over
from orchestrator.results.history import publish_history
from orchestrator.results.store import publish
from orchestrator.storage.local_root import LocalRoot
from orchestrator.tables.fill import fill
from sweeps.grid import load_grid
from sweeps.table import load_table
from tests.support.contrast import contrast
from tests.support.report_results import TABLE, write_history
from tests.support.result_rows import DRAWN, row_of

LINES = LineChart(
    "curve-a",
    "Validation mIoU: a < b",
    "mIoU (%) by epoch. A & B.",
    "mIoU (%)",
    (
        Series("A", 0, 2, tuple(Point(e, 40.0 + e, 39.0 + e, 41.0 + e) for e in range(1, 81))),
        Series("B, alone", 7, 1, (Point(1, 10.0, 10.0, 10.0), Point(80, 130.0, 130.0, 130.0))),
    ),
)
BARS = BarChart(
    "classes-a",
    "A minus B, by class",
    "Difference in IoU.",
    "IoU difference (percentage points)",
    (Bar("sky", 3.0, 2.0, 4.0), Bar("sea", 0.01, 0.01, 0.01), Bar("tv/monitor", -5.0, -5.0, -5.0)),
)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_an_axis_covers_its_values_with_round_ticks(values):
    ticks = ticks_over(values)

    step = ticks[1] - ticks[0]
    margin = 1e-9 * (abs(ticks[0]) + abs(ticks[-1]) + 1)
    assert ticks[0] - margin <= min(values)
    assert max(values) <= ticks[-1] + margin
    assert 2 <= len(ticks) <= 14
    assert float(f"{step:.3e}".partition("e")[0]) in (1.0, 2.0, 5.0)


def test_epochs_are_whole_and_no_percentage_is_negative():
    assert ticks_over([3, 3], is_count=True) == [2, 3, 4]
    assert ticks_over([0.0, 0.0], lowest=0.0)[0] == 0.0
    assert ticks_over([float("nan")]) == ticks_over([0.0, 1.0])


def test_a_tick_has_the_digits_its_step_needs():
    bars = (Bar("sky", -0.04, -0.04, -0.04), Bar("sea", 0.13, 0.13, 0.13))
    figure = figure_of(replace(BARS, bars=bars))
    figure.draw_without_rendering()

    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]

    assert labels[:3] == ["\u22120.05", "0.00", "0.05"]


def test_a_line_chart_draws_every_series_with_its_label_style_and_band():
    (axes,) = (figure := figure_of(LINES)).axes

    first, second = axes.get_lines()
    assert list(first.get_xdata()) == list(range(1, 81))
    assert list(first.get_ydata()) == [40.0 + epoch for epoch in range(1, 81)]
    assert [line.get_color() for line in (first, second)] == [COLOURS[0], COLOURS[1]]
    assert first.get_marker() != second.get_marker()
    assert first.get_linestyle() != second.get_linestyle()
    assert len(axes.collections) == 1  # the band of A; B has one seed
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B, alone"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "mIoU (%)")


def test_the_vertical_axis_begins_where_the_curves_are_after_a_fifth_of_the_epochs():
    scores = [10.0, 40.0, *(57.0 + epoch / 10 for epoch in range(19))]
    points = tuple(Point(epoch, y, y, y) for epoch, y in enumerate(scores, start=1))

    (axes,) = figure_of(replace(LINES, lines=(Series("A", 0, 1, points),))).axes

    assert axes.get_ylim() == (57.0, 59.0)


def test_a_bar_chart_draws_names_values_and_whiskers():
    (axes,) = figure_of(BARS).axes

    assert [label.get_text() for label in axes.get_yticklabels()] == ["sky", "sea", "tv/monitor"]
    assert [bar.get_width() for bar in axes.patches] == [3.0, 0.01, -5.0]
    assert [text.get_text() for text in axes.texts] == ["+3.0", "0.0", "\u22125.0"]
    assert axes.patches[0].get_facecolor() != axes.patches[2].get_facecolor()
    assert len(axes.containers) == 4  # three bars and the whisker of sky
    assert axes.get_xlabel() == "IoU difference (percentage points)"


@pytest.mark.parametrize("chart", [LINES, BARS], ids=["lines", "bars"])
def test_a_chart_in_the_page_has_words_and_shares_no_id_or_style_with_others(chart):
    text = inline_svg(chart)

    root = ElementTree.fromstring(text)
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == f"{chart.name}-title {chart.name}-text"
    assert (root[0].text, root[1].text) == (chart.title, chart.text)
    assert len(set(ids)) == len(ids)
    assert all(name.startswith(chart.name) for name in ids)
    assert set(re.findall(r"[(\"]#([^)\"]+)", text)) <= set(ids)
    assert "<style" not in text


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_the_same_chart_gives_the_same_bytes(kind):
    assert file_content(LINES, kind) == file_content(LINES, kind)


def test_a_figure_names_no_moment_and_carries_its_fonts():
    pdf, svg = file_content(BARS, "pdf"), file_content(BARS, "svg").decode()

    assert b"CreationDate" not in pdf
    assert b"/FontFile2" in pdf
    assert "<dc:date>" not in svg
    assert f'<desc id="classes-a-text">{BARS.text}</desc>' in svg
    assert "<text" not in svg


def test_figures_writes_every_chart_of_the_report_in_three_formats(tmp_path, capsys):
    (tmp_path / "two.yaml").write_text(TABLE)
    grid, root = tmp_path / "grid.yaml", tmp_path / "out"
    grid.write_text("title: Two\ntables: [two.yaml]\n")
    for cell in load_grid(str(grid)).cells:
        lines = write_history(tmp_path / cell.key, {1: {"miou_percent": 40.0, "mask_ratio": 0.5}})
        publish_history(LocalRoot(root), cell.key, 1, lines)
        publish(LocalRoot(root), row_of(cell, 40.0, class_names=("sky",), best_iou_percent=(40.0,)))

    code = main(["figures", str(grid), f"root={root}"])

    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    names = [chart.name for chart in charts(gather(make_plan(str(grid), LocalRoot(root))))]
    paths = [Path(line) for line in printed.out.split()]
    assert [name.partition("-")[0] for name in names] == ["curve", "curve", "classes"]
    assert [path.name for path in paths] == [
        f"{name}.{kind}" for name in names for kind in ("pdf", "svg", "png")
    ]
    assert {path.parent for path in paths} == {root / "figures/grid"}
    assert paths[0].read_bytes().startswith(b"%PDF")
    ElementTree.fromstring(paths[1].read_text())
    with Image.open(paths[2]) as image:
        assert image.width > 1000


def test_figures_of_nothing_says_so(tmp_path, capsys):
    assert main(["figures", "demo", f"root={tmp_path}"]) == 2

    assert "No run of demo has logged an epoch" in capsys.readouterr().err


@pytest.mark.parametrize("colour", COLOURS)
def test_lines_have_contrast_on_their_ground(colour):
    assert contrast(colour, "#ffffff") >= 3.0


def test_a_line_is_the_mean_over_the_runs_that_have_the_epoch():
    runs = [
        [EpochFacts(1, 10.0, None), EpochFacts(2, 20.0, None)],
        [EpochFacts(1, 14.0, None), EpochFacts(2, None, None)],
    ]

    line = series_of("A", 7, runs, lambda facts: facts.miou_percent)

    points = [(point.epoch, point.mean, point.low, point.high) for point in line.points]
    assert points == [(1, 12.0, 10.0, 14.0), (2, 20.0, 20.0, 20.0)]
    assert (line.seeds, line.style) == (2, 7)


def test_a_method_has_one_name_and_one_style_in_every_picture():
    tables = [fill(load_table(name), []) for name in load_grid("paper").tables]

    names = method_names(tables, load_grid("paper").cells)

    assert names == {
        ("unimatch_star", "none"): "UniMatch*",
        ("unimatch_star", "kl_no_warmup"): "L_KL",
        ("unimatch_star", "cr_no_warmup"): "L_CR",
        ("unimatch_star", "kl"): "IPixMatch",
        ("supervised", "none"): "Supervised Baseline",
    }


def test_curves_come_from_published_history_and_else_from_the_run_folder(tmp_path):
    root, cell = LocalRoot(tmp_path / "out"), load_grid(DRAWN).cells[0]
    folder = write_history(tmp_path / "a", {1: {"miou_percent": 41.0}})
    publish_history(root, cell.key, 1, folder)
    publish(root, row_of(cell, 41.0))
    other = load_grid(DRAWN).cells[1]
    write_history(tmp_path / "out/runs" / other.key, {1: {"miou_percent": 33.0}})

    histories = gather(make_plan(DRAWN, root)).histories

    assert histories[cell.key] == (EpochFacts(1, 41.0, None),)
    assert histories[other.key] == (EpochFacts(1, 33.0, None),)
    assert len(histories) == 2


def test_bars_are_mean_differences_of_each_class_over_pairs(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(TABLE)
    table = load_table(str(path))
    iou = {"supervised_star": (1.0, 1.0), "none": (50.0, 40.0), "kl": (53.0, 35.0)}
    rows = [
        row_of(
            replace(cell, seed=seed),
            50.0,
            class_names=("sky", "sea"),
            best_iou_percent=iou[
                "supervised_star" if cell.method == "supervised_star" else cell.loss
            ],
        )
        for cell in table.cells
        for seed in (1, 2)
    ]

    (panel,) = class_panels(fill(table, rows))

    assert panel.pairs == 2
    assert panel.chart.bars == (Bar("sky", 3.0, 3.0, 3.0), Bar("sea", -5.0, -5.0, -5.0))
    assert "1 of 2 classes gain. Most: sky +3.0; least: sea -5.0." in panel.chart.text


def test_every_protocol_with_history_has_a_panel(drawn):
    root = LocalRoot(drawn.parents[1])

    made = list(panels(gather(make_plan(DRAWN, root))))

    assert len(made) == len({(c.split, c.backbone) for c in load_grid(DRAWN).cells})
    assert all(panel.scores and panel.ratios for panel in made)
