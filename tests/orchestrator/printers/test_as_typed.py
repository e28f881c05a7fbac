"""Every label, corner, note, title and file name prints as it was typed, in every format."""

import io
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from markdown_it import MarkdownIt
from rich.console import Console

from orchestrator.printers.csv import table_csv
from orchestrator.printers.html import html
from orchestrator.printers.latex import escaped, latex, latex_document
from orchestrator.printers.markdown import markdown
from orchestrator.printers.terminal import terminal
from orchestrator.statistics.text import comparisons_markdown
from orchestrator.tables.fill import fill
from sweeps.table import load_table

ODD = (
    *("[12] CPS", "*Supervised, ours", "[ref", "] x", "**both**", "a [link](b)", "[red]x[/red]"),
    *("# head", "- item", "+ plus", "1. one", "2) two", "===", "> said", "a -- b --- c", "''x''"),
    *("`code`", "?`!`", "x_1^2", "50 % & $5$ ~ {y} \\z", "&amp; <b>x</b>", "|a|", ":car: x", "!x"),
    *(
        "\u00e9 \u0142 \u00df",
        "e\u0301",
        "\u03b1 \u03a9 \u2264",
        "\u4e2d\u6587 \U0001f600",
        ",,x",
        '"q"',
    ),
)


def table_of(folder, words, name="mine"):
    """A table with each word as a label of a row and of a block, and as a note."""
    rows = [{"label": word, "published": [50.1], "source": "x", "note": word} for word in words]
    spec = {
        "title": " ".join(words[:2]),
        "corner": words[0],
        "cell": {"recipe": "synthetic", "backbone": "resnet14_w8", "crop": 32},
        "columns": {"split": ["1of2"]},
        "labels": {"1of2": words[0]},
        "notes": list(words),
        "blocks": [{"label": word, "rows": [row]} for word, row in zip(words, rows, strict=True)],
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    return fill(load_table(str(path)), [])


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """All odd words in one table."""
    return table_of(tmp_path_factory.mktemp("odd"), ODD)


@pytest.mark.parametrize("word", ODD)
def test_markdown_shows_the_words_as_typed(tmp_path, word):
    parts = [
        token
        for block in MarkdownIt("commonmark")
        .enable("table")
        .parse(markdown(table_of(tmp_path, [word])))
        for token in block.children or []
    ]
    plain = [part.content for part in parts if part.type in ("text", "text_special")]

    assert "".join(plain).count(word) >= 4  # corner, head, label, block, note and notes
    assert {part.type for part in parts} <= {
        *("text", "text_special", "html_inline", "strong_open", "strong_close", "softbreak")
    }


def test_the_terminal_shows_the_words_as_typed(odd):
    console = Console(file=io.StringIO(), width=200)

    console.print(terminal(odd))

    for word in ODD:
        assert console.file.getvalue().count(word) >= 3, word


def test_html_and_csv_hold_the_words_as_typed(odd):
    import csv

    from markupsafe import escape

    page = str(html(odd))
    lines = list(csv.DictReader(io.StringIO(table_csv(odd))))

    assert all(page.count(str(escape(word))) >= 3 for word in ODD)
    assert [line["row"] for line in lines] == list(ODD)


def test_statistics_escape_the_title_as_well(tmp_path):
    assert comparisons_markdown(table_of(tmp_path, ["[x] *y*"])).startswith("**\\[x\\] \\*y\\*: ")


def test_latex_takes_no_first_letter_of_a_line_as_an_option(odd):
    for line in latex(odd).splitlines():
        assert line[:1] not in ("[", "*"), line


def test_latex_writes_signs_that_it_would_join_apart():
    assert escaped("a -- b --- '' ,, `") == "a -{}- b -{}-{}- '{}' ,{}, \\textasciigrave{}"


def test_latex_has_something_to_print_for_every_letter():
    assert escaped("e\u0301") == "\u00e9"
    assert escaped("\u0105").startswith("\\gridletter{\u0105}{{\\fontencoding{T1}")
    assert escaped("\u03b1\u4e2d") == "\\gridletter{\u03b1}{$\\alpha$}\\gridletter{\u4e2d}{U+4E2D}"


@pytest.mark.parametrize(
    ("name", "reference"),
    [("ab#1", "ab-1"), ("50%", "50-"), ("a{b", "a-b"), ("a b_c", "a b_c"), ("\u00e9~", "--")],
)
def test_the_name_of_a_file_is_a_label_that_latex_takes(tmp_path, name, reference):
    assert f"\\label{{tab:{reference}}}" in latex(table_of(tmp_path, ["x"], name))


def test_latex_of_odd_words_compiles(odd, tmp_path):
    if shutil.which("pdflatex") is None:
        assert os.environ.get("CI") != "true", "CI needs pdflatex"
        sys.stderr.write("left out: compiling LaTeX needs pdflatex\n")
        return
    named = [latex(table_of(tmp_path, [word], name)) for word, name in (("[1]", "a#1"), ("*", "%"))]
    body = latex(odd).replace("table*", "table")
    rows = "\n".join(named)
    (tmp_path / "odd.tex").write_text(latex_document([rows, "\\listoftables", body]))

    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "odd.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )

    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("word", ["[12] x", "[/red]", "[bold]b", ":car: d", "a [link=x] b"])
def test_titles_and_columns_reach_the_terminal_as_typed(word):
    from rich.table import Table

    from orchestrator.commands.output import as_typed

    file = io.StringIO()
    shown = Table(word, title=word)
    shown.add_row(word)

    as_typed(file).print(shown)

    assert file.getvalue().count(word) == 3


@pytest.mark.parametrize("word", ["_mine", "cost $x$", "a$b", r"$\unknown$", "x_1^2 \\n"])
def test_charts_show_labels_as_typed(word):
    from orchestrator.report.charts import LineChart, Point, Series
    from orchestrator.report.plots import file_content, inline_svg

    line = Series(word, 0, 1, (Point(1, 1.0, 1.0, 1.0), Point(2, 2.0, 2.0, 2.0)))
    chart = LineChart("name", "title", "text", "mIoU", (line,))

    assert f">{word}</" in inline_svg(chart)
    assert file_content(chart, "svg")
