"""The report: what it tells, and how a real browser shows it."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets.known.registry import KNOWN
from orchestrator.planning.plan import make_plan
from orchestrator.report.charts import class_pictures, method_names, panels, series_of
from orchestrator.report.data import EpochFacts, gather
from orchestrator.report.page import page, report
from orchestrator.report.pictures import Box, accuracy, boxes, chosen, gain
from orchestrator.report.svg import scale_over
from orchestrator.results.history import publish_history
from orchestrator.results.store import publish, read_rows
from orchestrator.storage.local_root import LocalRoot
from orchestrator.tables.fill import fill
from sweeps.grid import load_grid
from sweeps.table import load_table
from tests.support.browser import browser, program
from tests.support.result_rows import row_of
from trainer.checkpoint_manifest import file_sha256, read_manifest

CHECKOUT = Path(__file__).resolve().parents[3]
SHORT = (
    "optim.epochs=1",
    "optim.batch=8",
    "data.drawn.num_train=24",
    "data.drawn.num_val=6",
)
TABLE = """
title: Two methods & a baseline
corner: Drawn
cell: {recipe: synthetic, backbone: resnet14_w8, crop: 32}
columns: {split: [1of2]}
blocks:
  - rows:
      - {label: Supervised, cell: {method: supervised, loss: none}}
      - {label: "UniMatch*", cell: {method: unimatch_star, loss: none}}
      - {label: IPixMatch, cell: {method: unimatch_star, loss: kl}}
      - {label: Improvement, minus: [IPixMatch, "UniMatch*"]}
"""


def write_history(folder, epochs):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"step": 5 * epoch, "epoch": epoch, **values})
        for epoch, values in epochs.items()
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def publish_demo(root, tmp_path, seeds=(1, 2)):
    """Results of the whole demo grid, as its runs would leave them; one cell has failed."""
    plan = make_plan("demo", root)
    names = ("background", "striped disc", "checked box")
    for number, cell in enumerate(plan.cells):
        own = load_grid("demo").cells[number]
        for seed in seeds:
            placed = replace(own, seed=seed)
            score = 40.0 + number + seed / 3
            curve = {e: {"miou_percent": score - 9 / e, "mask_ratio": e / 9} for e in (1, 2, 3)}
            folder = write_history(tmp_path / "lines", curve)
            row = row_of(
                placed,
                score,
                fingerprint=cell.fingerprint,
                config_json=cell.config_json.replace('"seed":12345}', f'"seed":{seed}}}'),
                best_iou_percent=(score + 20, score, score - 20 if number else None),
                class_names=names,
                best_confusion=((90, 8, 2), (1, 40, 59), (0, 0, 0)),
                seconds=360.0,
                gpu_seconds=360.0,
                peak_memory_bytes=2**31,
            )
            publish_history(root, placed.key, 1, folder)
            publish(root, row)
    failed = plan.cells[0]
    error = "Diverged: <script>alert('no')</script>"
    fields = {"fingerprint": failed.fingerprint, "config_json": failed.config_json}
    kind = {"error_class": "diverged", "error_text": error}
    publish(root, row_of(load_grid("demo").cells[0], **fields, **kind))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The report of the demo grid over rows that its runs could have left."""
    root = tmp_path_factory.mktemp("demo")
    publish_demo(LocalRoot(root), root)
    return report(make_plan("demo", LocalRoot(root)))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The report of the paper's widest table, with a matrix of 21 classes."""
    folder = tmp_path_factory.mktemp("wide")
    (folder / "grid.yaml").write_text("title: Wide\ntables: [table3]\n")
    grid = load_grid(str(folder / "grid.yaml"))
    names = KNOWN["voc"].spec.class_names
    counts = tuple(tuple(100 if i == j else 1 for j in range(21)) for i in range(21))
    for cell in grid.cells:
        row = row_of(cell, 70.0 + len(cell.loss), class_names=names, best_confusion=counts)
        publish(LocalRoot(folder), row)
    return report(make_plan(str(folder / "grid.yaml"), LocalRoot(folder)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A report of runs that really ran, with checkpoints to draw pictures from."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "two.yaml").write_text(TABLE)
    overrides = ", ".join([*SHORT, f"data.root={folder}/drawn"])
    grid = folder / "grid.yaml"
    grid.write_text(f"title: Real runs\ntables: [two.yaml]\noverrides: [{overrides}]\n")
    root = folder / "out"
    words = [str(grid), f"root={root}", "backend=inline"]
    command = [sys.executable, "-m", "orchestrator", "launch", *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for number, run in enumerate(sorted((root / "runs").iterdir())):
        decide_otherwise(run / "checkpoints/best.pt", number)
    return report(make_plan(str(grid), LocalRoot(root)))


def decide_otherwise(path, seed):
    """One epoch teaches a network to answer background; other last weights make it answer more."""
    packed = torch.load(path, weights_only=True)
    shape = packed["weights"]["classifier.weight"].shape
    drawn = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    packed["weights"]["classifier.weight"] = torch.from_numpy(drawn)
    torch.save(packed, path)
    manifest = read_manifest(path.with_suffix(".json"))
    renewed = replace(manifest, sha256=file_sha256(path), size=path.stat().st_size)
    path.with_suffix(".json").write_text(renewed.text())


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_a_scale_covers_its_values_with_round_ticks(values):
    scale = scale_over(values, (0.0, 100.0))

    margin = 1e-9 * (abs(scale.low) + abs(scale.high) + 1)
    assert scale.low - margin <= min(values)
    assert max(values) <= scale.high + margin
    assert 2 <= len(scale.ticks) <= 14
    assert float(f"{scale.step:e}".partition("e")[0]) in (1.0, 2.0, 5.0)


def test_epochs_are_whole_and_no_percentage_is_negative():
    epochs = scale_over([3, 3], (0.0, 1.0), least_step=1)
    shares = scale_over([0.0, 0.0], (0.0, 1.0), lowest=0)

    assert epochs.ticks == [2, 3, 4]
    assert shares.ticks[0] == 0.0


def test_a_tick_has_the_digits_its_step_needs():
    scale = scale_over([-0.04, 0.13], (0.0, 1.0))

    assert [scale.label(tick) for tick in scale.ticks][:3] == ["\u22120.05", "0.00", "0.05"]


def test_a_line_is_the_mean_over_the_runs_that_have_the_epoch():
    runs = [
        [EpochFacts(1, 10.0, None), EpochFacts(2, 20.0, None)],
        [EpochFacts(1, 14.0, None), EpochFacts(2, None, None)],
    ]

    line = series_of("A", 7, runs, lambda facts: facts.miou_percent)

    points = [(point.x, point.y, point.low, point.high) for point in line.points]
    assert points == [(1, 12.0, 10.0, 14.0), (2, 20.0, 20.0, 20.0)]
    assert (line.seeds, line.style) == (2, 1)


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
    root, cell = LocalRoot(tmp_path / "out"), load_grid("demo").cells[0]
    folder = write_history(tmp_path / "a", {1: {"miou_percent": 41.0}})
    publish_history(root, cell.key, 1, folder)
    publish(root, row_of(cell, 41.0))
    other = load_grid("demo").cells[1]
    write_history(tmp_path / "out/runs" / other.key, {1: {"miou_percent": 33.0}})

    found = gather(make_plan("demo", root)).histories

    assert found[cell.key] == (EpochFacts(1, 41.0, None),)
    assert found[other.key] == (EpochFacts(1, 33.0, None),)
    assert len(found) == 2


def test_bars_are_mean_differences_of_each_class_over_pairs(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(TABLE)
    table = load_table(str(path))
    iou = {"supervised": (1.0, 1.0), "none": (50.0, 40.0), "kl": (53.0, 35.0)}
    rows = [
        row_of(
            replace(cell, seed=seed),
            50.0,
            class_names=("sky", "sea"),
            best_iou_percent=iou["supervised" if cell.method == "supervised" else cell.loss],
        )
        for cell in table.cells
        for seed in (1, 2)
    ]

    (picture,) = class_pictures(fill(table, rows))

    assert picture.pairs == 2
    assert "1 of 2 classes gain. Most: sky +3.0; least: sea -5.0." in picture.svg


masks = st.integers(0, 2**32).map(
    lambda seed: np.random.default_rng(seed).choice([0, 1, 2, 255], (3, 12, 9)).astype(np.uint8)
)


@given(masks)
def test_the_box_is_the_window_with_most_pixels_where_one_is_right(three):
    truth, base, new = three
    differs = ((base == truth) != (new == truth)) & (truth != 255)

    first, *rest = boxes(truth, base, new)

    counts = {
        (top, left): differs[top : top + 4, left : left + 3].sum()
        for top in range(9)
        for left in range(7)
    }
    assert counts[first.top, first.left] == max(counts.values())
    for box in rest:
        apart = abs(box.top - first.top) >= 4 or abs(box.left - first.left) >= 3
        assert apart
        assert 2 * counts[box.top, box.left] >= counts[first.top, first.left]


def test_two_masks_that_agree_have_no_box():
    mask = np.ones((9, 9), np.uint8)

    assert boxes(mask, mask, mask) == []


def test_gain_counts_no_ignored_pixel():
    truth = np.array([[1, 1, 255, 2]], np.uint8)
    base, new = np.array([[1, 0, 0, 0]], np.uint8), np.array([[1, 1, 1, 0]], np.uint8)

    assert gain(truth, base, new) == pytest.approx(1 / 3)
    assert gain(truth, new, base) == pytest.approx(-1 / 3)
    assert accuracy(truth, new) == pytest.approx(2 / 3)


def test_half_of_the_images_gain_most_and_half_lose_most():
    assert chosen([0.1, -0.3, 0.5, 0.0, -0.1, 0.2], 4) == [2, 5, 1, 4]
    assert chosen([0.1, 0.2], 4) == [1, 0]
    assert chosen([0.0], 4) == []


def test_a_box_keeps_inside_the_image():
    truth = np.zeros((10, 10), np.uint8)
    new = truth.copy()
    new[9, 9] = 1

    assert boxes(truth, truth, new) == [Box(7, 7, 3, 3)]


def test_a_report_of_nothing_is_still_a_report(tmp_path):
    text = report(make_plan("demo", LocalRoot(tmp_path))).read_text()

    assert "0 <small>of 16</small>" in text
    assert "No run has logged an epoch yet" in text
    assert "No run is done yet" in text


def test_the_page_tells_states_costs_failures_and_provenance(demo):
    text = demo.read_text()

    assert "Diverged: &lt;script&gt;alert(&#x27;no&#x27;)&lt;/script&gt;" in text
    assert "<script" not in text
    assert 'href="#from-demo-unimatch-star-resnet14-w8-1of8"' in text
    assert "0123456789" in text
    assert "3.20" in text  # 32 runs of a tenth of a GPU-hour
    assert "cannot be reached" in text or "after Holm" in text


def test_the_same_results_give_the_same_page(tmp_path):
    publish_demo(LocalRoot(tmp_path / "out"), tmp_path)
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    plan = make_plan("demo", LocalRoot(tmp_path / "out"))

    first, second = (page(replace(gather(plan), made=moment)) for _ in range(2))

    assert first == second


def test_every_setting_with_history_has_a_panel(demo):
    root = LocalRoot(demo.parents[1])

    found = list(panels(gather(make_plan("demo", root))))

    assert len(found) == len({(c.split, c.backbone) for c in load_grid("demo").cells})
    assert all(panel.scores and panel.ratios for panel in found)


def test_real_runs_leave_pictures_of_what_they_predict(trained):
    text = trained.read_text()

    assert "Chosen by rule, not by eye: of the first 6 validation images" in text
    urls = re.findall(r'href="data:image/(png|jpeg);base64,([^"]+)"', text)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for _, data in urls]
    assert len(images) % 4 == 0
    assert {image.size for image in images} == {(96, 72)}
    assert "Prediction of IPixMatch for" in text


def test_pictures_without_checkpoints_say_why(demo):
    assert "no two runs to compare have left their best checkpoints here" in demo.read_text()


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_text_and_lines_have_contrast_in_light_and_dark(theme):
    style = (CHECKOUT / "orchestrator/report/style.css").read_text()
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[theme]
    colours = dict(re.findall(r"--(\w+): (#\w{6})", block))

    for name in ("ink", "soft", "accent", "good", "bad", "warn"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
        assert contrast(colours[name], colours["raised"]) >= 4.5, name
    for number in range(6):
        assert contrast(colours[f"s{number}"], colours["paper"]) >= 3.0, number


def test_a_browser_shows_it_without_an_error_and_asks_for_nothing(demo, trained, tmp_path):
    if program() is None:
        return
    with browser(tmp_path) as opened:
        for path in (demo, trained):
            opened.open(path)

            asked = [url for url in opened.requests if not url.startswith("data:")]
            assert opened.complaints == []
            assert asked == [path.as_uri()]


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_page_itself_never_scrolls_sideways(trained, wide, tmp_path, width):
    if program() is None:
        return
    with browser(tmp_path) as opened:
        opened.size(width)
        opened.open(wide)
        opened.value("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert opened.value("document.documentElement.scrollWidth") <= width

        opened.open(trained)
        opened.value("document.querySelectorAll('details').forEach(d => d.open = true)")

        assert opened.value("document.documentElement.scrollWidth") <= width
        small = "[...document.querySelectorAll('p, li, td, dd')].filter(e => e.offsetHeight &&"
        small += " parseFloat(getComputedStyle(e).fontSize) < 12).length"
        assert opened.value(small) == 0


def test_the_page_is_built_for_those_who_listen(trained, tmp_path):
    if program() is None:
        return
    with browser(tmp_path) as opened:
        opened.open(trained)
        nodes = opened.ask("Accessibility.getFullAXTree")["nodes"]

        def of(role):
            return [n for n in nodes if n.get("role", {}).get("value") == role]

        def name(node):
            return node.get("name", {}).get("value", "").strip()

        assert opened.value("document.documentElement.lang") == "en"
        assert len(of("main")) == 1
        assert [name(n) for n in of("navigation")] == ["Sections"]
        images = [*of("image"), *of("img")]
        assert len(images) > 6
        assert all(name(n) for n in [*images, *of("table"), *of("link"), *of("region")])
        levels = opened.value(
            "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])"
        )
        assert levels[0] == 1
        assert all(b - a <= 1 for a, b in pairwise(levels))
        assert opened.value("document.querySelectorAll('th:not([scope])').length") == 0


def test_every_link_leads_somewhere_and_every_id_is_there_once(demo, tmp_path):
    if program() is None:
        return
    with browser(tmp_path) as opened:
        opened.open(demo)
        dead = "[...document.querySelectorAll('a')].map(a => a.getAttribute('href').slice(1))"
        ids = opened.value("[...document.querySelectorAll('[id]')].map(e => e.id)")

        assert opened.value(f"{dead}.filter(i => !document.getElementById(i))") == []
        assert len(set(ids)) == len(ids)
        opened.value("document.querySelector('td a').click()")
        assert opened.value("document.querySelector(':target').closest('details').open")


def test_dark_readers_get_a_dark_page_and_printers_everything(demo, tmp_path):
    if program() is None:
        return
    with browser(tmp_path) as opened:
        opened.open(demo)
        shade = "getComputedStyle(document.body).backgroundColor"
        light = opened.value(shade)
        opened.media(prefers_color_scheme="dark")
        dark = opened.value(shade)
        printed = base64.b64decode(opened.ask("Page.printToPDF")["data"])

        assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 23, 27)")
        assert printed.startswith(b"%PDF")
        assert printed.count(b"/Type /Page\n") > 2


def test_a_checkpoint_that_is_not_what_its_manifest_says_draws_no_picture(trained, tmp_path):
    root = tmp_path / "out"
    shutil.copytree(trained.parents[1], root)
    for path in root.glob("runs/*/checkpoints/best.pt"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")

    text = report(make_plan(str(trained.parents[2] / "grid.yaml"), LocalRoot(root))).read_text()

    assert "is not what its manifest promises; the picture is left out" in text


def test_a_matrix_shows_what_part_of_each_class_was_taken_for_which(demo):
    text = demo.read_text()
    figure = text[text.index('<figure class="confusion"') :]
    figure = figure[: figure.index("</figure>")]

    assert "59&nbsp;% of striped disc for checked box; 8&nbsp;% of background for" in figure
    lines = re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', figure)
    shown = {name: re.findall(r"<td[^>]*>(\d*)</td>", cells) for name, cells in lines}
    assert shown == {"background": ["90", "8", "2"], "striped disc": ["1", "40", "59"]}


def test_a_run_that_really_ran_scores_what_its_matrix_says(trained):
    root = trained.parents[1]
    for row in read_rows(LocalRoot(root)):
        for counts, miou in (
            (row.best_confusion, row.best_miou_percent),
            (row.last_confusion, row.last_miou_percent),
        ):
            matrix = np.array(counts)
            union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
            iou = np.divide(np.diag(matrix), union, out=np.zeros(len(union)), where=union > 0)
            assert miou == pytest.approx(100 * iou.mean(), rel=1e-12)
        kept = json.loads((root / "runs" / row.key / "confusion.json").read_text())
        assert kept["best"] == {
            "epoch": row.best_epoch,
            "counts": [list(line) for line in row.best_confusion],
        }
