"""The page: what it tells, and how a real browser shows it."""

import base64
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.planning.plan import make_plan
from orchestrator.report.data import gather
from orchestrator.report.page import page, report
from orchestrator.storage.local_root import LocalRoot
from tests.support.contrast import contrast
from tests.support.result_rows import DRAWN

CHECKOUT = Path(__file__).resolve().parents[3]


def test_other_verbs_load_neither_jinja2_nor_matplotlib():
    probe = (
        "import sys, orchestrator.commands.verbs as _; "
        "print({'jinja2', 'matplotlib'} & {*sys.modules})"
    )

    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "set()\n"


def test_a_report_of_nothing_is_still_a_report(tmp_path):
    parts: list[str] = []

    text = report(make_plan(DRAWN, LocalRoot(tmp_path)), say=parts.append)[-1].read_text()

    assert parts == ["tables", "the page"]
    assert "0 <small>of 16</small>" in text
    assert "No run has logged an epoch yet" in text
    assert "No run is done yet" in text


def test_the_page_tells_states_costs_failures_and_provenance(drawn):
    text = drawn.read_text()

    assert "Diverged: &lt;script&gt;alert(&#39;no&#39;)&lt;/script&gt;" in text
    assert "<script" not in text
    assert 'href="#from-drawn-table-unimatch-star-resnet14-w8-1of8"' in text
    assert "0123456789" in text
    assert "3.20" in text  # 32 runs of a tenth of a GPU-hour
    assert "cannot give a p below" in text or "after Holm" in text


def test_hours_of_runs_without_a_gpu_are_cpu_hours(drawn):
    data = gather(make_plan(DRAWN, LocalRoot(drawn.parents[1])))
    rows = tuple(replace(row, gpu_seconds=0.0, world_size=2) for row in data.rows)

    text = page(replace(data, rows=rows))

    assert "GPU-hours" not in text
    assert "<dt>CPU-hours</dt><dd>6.4</dd>" in text  # 32 runs of two ranks, a tenth of an hour


def test_the_same_results_give_the_same_page(drawn):
    data = gather(make_plan(DRAWN, LocalRoot(drawn.parents[1])))
    moment = datetime(2026, 1, 2, tzinfo=UTC)

    first, second = (page(replace(data, made=moment)) for _ in range(2))

    assert first == second


def test_a_matrix_shows_what_part_of_each_class_was_taken_for_which(drawn):
    text = drawn.read_text()
    figure = text[text.index('<figure class="confusion"') :]
    figure = figure[: figure.index("</figure>")]

    assert "59&nbsp;% of striped disc for checked box; 8&nbsp;% of background for" in figure
    lines = re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', figure)
    shown = {name: re.findall(r"<td[^>]*>(\d*)</td>", cells) for name, cells in lines}
    assert shown == {"background": ["90", "8", "2"], "striped disc": ["1", "40", "59"]}


@pytest.mark.parametrize("theme", [0, 1])
def test_text_has_contrast_in_light_and_dark(theme):
    style = (CHECKOUT / "orchestrator/report/templates/style.css").read_text()
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[theme]
    colours = dict(re.findall(r"--(\w+): (#\w{6})", block))

    for name in ("ink", "soft", "accent", "good", "bad", "warn"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
        assert contrast(colours[name], colours["raised"]) >= 4.5, name


def test_a_browser_shows_it_without_an_error_and_asks_for_nothing(drawn, trained, opened):
    if opened is None:
        return
    for path in (drawn, trained):
        opened.open(path)

        asked = [url for url in opened.requests if not url.startswith("data:")]
        assert opened.complaints == []
        assert asked == [path.as_uri()]


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_page_itself_never_scrolls_sideways(drawn, trained, wide, opened, width):
    if opened is None:
        return
    opened.size(width)
    for path in (drawn, wide, trained):
        opened.open(path)
        opened.value("document.querySelectorAll('details').forEach(d => d.open = true)")

        small = "[...document.querySelectorAll('p, li, td, dd')].filter(e => e.offsetHeight &&"
        small += " parseFloat(getComputedStyle(e).fontSize) < 12).length"
        assert opened.value("document.documentElement.scrollWidth") <= width, path
        assert opened.value(small) == 0, path


def test_the_page_is_built_for_those_who_listen(trained, opened):
    if opened is None:
        return
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
    levels = opened.value("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert opened.value("document.querySelectorAll('th:not([scope])').length") == 0


def test_every_link_leads_somewhere_and_every_id_is_there_once(drawn, opened):
    if opened is None:
        return
    opened.open(drawn)
    dead = "[...document.querySelectorAll('a')].map(a => a.getAttribute('href').slice(1))"
    ids = opened.value("[...document.querySelectorAll('[id]')].map(e => e.id)")

    assert opened.value(f"{dead}.filter(i => !document.getElementById(i))") == []
    assert len(set(ids)) == len(ids)
    opened.value("document.querySelector('td a').click()")
    assert opened.value("document.querySelector(':target').closest('details').open")


def test_dark_readers_get_a_dark_page_and_printers_everything(drawn, opened):
    if opened is None:
        return
    opened.open(drawn)
    shade = "getComputedStyle(document.body).backgroundColor"
    light = opened.value(shade)
    opened.media(prefers_color_scheme="dark")
    dark = opened.value(shade)
    printed = base64.b64decode(opened.ask("Page.printToPDF")["data"])

    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 23, 27)")
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") > 2
