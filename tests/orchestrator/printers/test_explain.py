"""Every number leads back to its runs, and a manuscript's numbers are watched."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from orchestrator.printers.explain import explain, explanation_text, explanations_json
from orchestrator.printers.latex import latex
from orchestrator.printers.manuscript import check_manuscript
from orchestrator.printers.numbers import numbers
from orchestrator.results.counted import Today
from orchestrator.tables.fill import fill
from orchestrator.tables.notes import roundings
from orchestrator.tables.text import named_entries, shown, slug
from sweeps.table import TABLE_FOLDER, load_table
from tests.support.result_rows import row_of

TABLES = sorted(path.stem for path in TABLE_FOLDER.glob("*.yaml"))
NAME = "table3/321/ipixmatch/resnet50-p1-1of16"
DEBIAN = "texlive-latex-base texlive-latex-recommended texlive-latex-extra"


def rows_of(table, seeds=(1, 2), **fields):
    return [
        row_of(replace(cell, seed=seed), 70.0 + seed / 4 + i / 8, **fields)
        for seed in seeds
        for i, cell in enumerate(table.cells)
    ]


@pytest.fixture
def table():
    return load_table("table3")


@pytest.fixture
def rows(table):
    return rows_of(table)


def manuscript(tmp_path, filled, text):
    (tmp_path / "numbers").mkdir(exist_ok=True)
    (tmp_path / f"numbers/{filled.table.name}_numbers.tex").write_text(numbers(filled))
    path = tmp_path / "paper.tex"
    path.write_text(f"\\input{{numbers/{filled.table.name}_numbers}}\n{text}\n")
    return path


def test_every_number_of_every_table_has_a_name_of_its_own():
    names = [named.name for table in TABLES for named in named_entries(fill(load_table(table), []))]

    assert len(set(names)) == len(names)
    assert NAME in names
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-/") for name in names)


def test_a_star_is_part_of_a_name():
    assert slug("UniMatch*") == "unimatch-star"
    assert slug("#P1: 1/16 (662)") == "p1-1-16-662"


def test_a_number_leads_to_its_rows_configurations_and_commits(table, rows):
    (explanation,) = explain(NAME, [fill(table, rows)], rows)

    text = explanation_text(explanation)
    assert [row.seed for row in explanation.rows] == [1, 2]
    assert "prints  71.9 ±0.2 (paper 74.5)" in text
    assert "is      mIoU (%) at the best epoch, mean over seeds 1, 2" in text
    assert "commit 0123456789abcdef; torch 2.13.0" in text
    assert 'recipe="voc"' in text


def test_an_improvement_leads_to_the_rows_of_both_methods(table, rows):
    (explanation,) = explain(NAME.replace("ipixmatch", "improvement"), [fill(table, rows)], rows)

    assert explanation.formula.startswith("IPixMatch minus UniMatch*, seed by seed, n = 2")
    assert {row.loss for row in explanation.rows} == {"kl", "none"}


def test_a_quoted_number_leads_to_its_source(table, rows):
    explanations = explain("table3/321/cac", [fill(table, rows)], rows)

    assert len(explanations) == 6
    assert "source: CAC paper" in explanation_text(explanations[0])


def test_a_cell_leads_to_all_its_attempts(table, rows):
    again = row_of(rows[0].cell, attempt=2, error_class="diverged")

    (explanation,) = explain(rows[0].key, [fill(table, rows)], [*rows, again])
    (seeds,) = explain(rows[0].group, [fill(table, rows)], rows)

    assert "attempt 2: failed: diverged" in explanation_text(explanation)
    assert len(seeds.rows) == 2


def test_differing_configurations_and_machines_are_said(table, rows):
    odd = replace(rows[0], device="H200", config_json='{"recipe":"voc","lr":2,"seed":1}')

    (explanation,) = explain(rows[0].group, [], [odd, rows[36]])

    text = explanation_text(explanation)
    assert "configurations differ in lr: 2, (absent)" in text
    assert "code and machines differ: 2 kinds" in text


@pytest.mark.parametrize("number", ["70.4", "+0.4", "74.5", "76,2"])
def test_a_printed_number_leads_to_every_entry_that_prints_it(number, table, rows):
    filled = fill(table, rows)
    text = number.replace(",", ".")
    printing = [
        named.name
        for named in named_entries(filled)
        for words in [shown(named.row, 1)[named.column]]
        if text in (words.main, words.paper)
    ]

    names = [explanation.name for explanation in explain(number, [filled], rows)]

    assert names == printing
    assert names


def test_a_number_that_nothing_prints_is_answered_with_the_nearest(table, rows):
    with pytest.raises(
        ValueError, match=r"No entry prints 70\.35\. The nearest are 70\.\d \(table3"
    ):
        explain("70.35", [fill(table, rows)], rows)
    with pytest.raises(ValueError, match="print no number yet"):
        explain("53.5", [], [])


def test_a_number_of_the_paper_is_found_before_anything_ran_with_the_cell_to_launch(table):
    (explanation,) = explain("75.9", [fill(table, [])], [])

    text = explanation_text(explanation)
    assert "prints  -- (paper 75.9)" in text
    assert "is      nothing yet" in text
    assert re.search(r"`launch` trains it: voc\.p1_1of16\.resnet101\.\S+\.s12345", text)


def test_programs_get_whole_rows(table, rows):
    (plain,) = json.loads(explanations_json(explain(NAME, [fill(table, rows)], rows)))

    assert plain["rows"][0]["key"] == f"{plain['rows'][0]['recipe']}.p1_1of16.resnet50.c321" + (
        ".unimatch_star.kl.s1"
    )
    assert plain["rows"][0]["config"]["recipe"] == "voc"


def test_an_unknown_name_is_answered_with_near_ones(table, rows):
    with pytest.raises(ValueError, match=r"called 'table3/321/ipixmach'.*table3/321/ipixmatch/"):
        explain("table3/321/ipixmach", [fill(table, rows)], rows)


def test_a_manuscript_of_todays_numbers_is_fine(tmp_path, table, rows):
    filled = fill(table, rows)
    text = f"\\gridnumber{{{NAME}}} $\\pm$ \\gridnumber{{{NAME}/spread}} % \\gridnumber{{old}}"

    answer = check_manuscript(manuscript(tmp_path, filled, text), [filled])

    assert (answer.numbers, answer.findings) == (2, ())


@pytest.mark.parametrize(
    ("change", "problem", "text"),
    [
        ({"best_miou_percent": 60.0}, "stale", "reads 71.9; today it is 66.0"),
        ({"fingerprint": "0" * 64}, "stale", "another configuration, or other data"),
        (
            {"config_json": '{"recipe":"voc","lr":2,"seed":1}'},
            "mixed",
            "other configurations or other data",
        ),
        ({"device": "H200"}, "mixed", "different code or machines"),
        ({"status": "failed"}, "missing", "some of its seeds have no result"),
    ],
)
def test_a_number_that_changed_is_found(tmp_path, table, rows, change, problem, text):
    path = manuscript(tmp_path, fill(table, rows), f"\\gridnumber{{{NAME}}}")
    today = {row.key: Today(row.fingerprint) for row in rows}
    (at,) = (i for i, r in enumerate(rows) if f"{r.group}.s1" == r.key and _is_named(r))

    changed = [*rows[:at], replace(rows[at], **change), *rows[at + 1 :]]
    answer = check_manuscript(path, [fill(table, changed, today=today)])

    assert any(f.problem == problem and text in f.text for f in answer.findings)
    assert answer.findings[0].where == "paper.tex:2"


def _is_named(row):
    return (row.split, row.backbone, row.crop, row.loss) == ("p1_1of16", "resnet50", 321, "kl")


def test_a_typed_number_is_watched_too(tmp_path, table, rows):
    filled = fill(table, rows)
    text = f"\\gridtyped{{{NAME}}}{{71.9}} and \\gridtyped{{{NAME}}}{{72.0}}"

    answer = check_manuscript(manuscript(tmp_path, filled, text), [filled])

    assert [str(f) for f in answer.findings] == [
        f"paper.tex:2: stale: {NAME} reads 72.0; today it is 71.9."
    ]


def test_a_number_without_a_result_or_without_a_name_is_missing(tmp_path, table, rows):
    filled = fill(table, [row for row in rows if not _is_named(row)])
    text = f"\\gridnumber{{{NAME}}} \\gridnumber{{{NAME}x}}\n\\input{{nowhere}}"

    answer = check_manuscript(manuscript(tmp_path, filled, text), [filled])

    assert [f.problem for f in answer.findings] == ["missing"] * 3
    assert "has no result yet" in answer.findings[1].text
    assert "Did you mean table3/" in answer.findings[2].text


def test_a_number_whose_file_is_not_input_is_missing(tmp_path, table, rows):
    path = tmp_path / "paper.tex"
    path.write_text(f"\\gridnumber{{{NAME}}}")

    (finding,) = check_manuscript(path, [fill(table, rows)]).findings

    assert "is in no numbers file that is input" in finding.text


def test_a_whole_table_of_yesterday_is_stale(tmp_path, table, rows):
    (tmp_path / "table3.tex").write_text(latex(fill(table, rows)))
    path = tmp_path / "paper.tex"
    path.write_text("\\input{table3}")

    assert check_manuscript(path, [fill(table, rows)]).findings == ()
    (finding,) = check_manuscript(path, [fill(table, rows[1:])]).findings
    assert (finding.problem, finding.where) == ("stale", "paper.tex:1")


def test_a_manuscript_without_numbers_is_an_error(tmp_path, table):
    path = tmp_path / "paper.tex"
    path.write_text("Words.")

    with pytest.raises(ValueError, match="takes no number from the results"):
        check_manuscript(path, [fill(table, [])])
    with pytest.raises(ValueError, match="cannot be read"):
        check_manuscript(tmp_path / "none.tex", [fill(table, [])])


def test_the_macros_compile_and_print_the_numbers(tmp_path, table, rows):
    if shutil.which("pdflatex") is None:
        assert os.environ.get("CI") != "true", f"CI needs pdflatex: apt-get install {DEBIAN}"
        sys.stderr.write(f"left out: compiling LaTeX needs pdflatex (apt-get install {DEBIAN})\n")
        return
    text = f"\\typeout{{reads \\gridnumber{{{NAME}}}, \\gridtyped{{x}}{{1.0}}}}\\gridnumber{{none}}"
    path = manuscript(tmp_path, fill(table, rows), text)
    body = path.read_text()
    path.write_text(f"\\documentclass{{article}}\\begin{{document}}{body}\\end{{document}}")

    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", path.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-2000:]
    assert "reads 71.9, 1.0" in done.stdout
    assert "No result is called none" in done.stdout


def test_four_printed_improvements_differ_from_the_printed_scores_by_rounding():
    own = [name for name in TABLES if not name.endswith("_all")]  # those print the same numbers
    rounded = [(t, r) for t in own for r in roundings(load_table(t))]

    assert [(t, r.block, r.column, r.printed, round(r.recomputed, 2)) for t, r in rounded] == [
        ("table3", "321", "ResNet-50 1/4", 0.4, 0.5),
        ("table3", "513", "ResNet-101 1/4", 0.4, 0.3),
        ("table4", "RN-50", "1464", 0.5, 0.4),
        ("table4", "RN-101", "183", -0.7, -0.8),
    ]
    assert all(rounding.is_explained for _, rounding in rounded)
