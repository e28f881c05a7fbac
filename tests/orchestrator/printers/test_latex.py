"""Tables in LaTeX."""

import os
import shutil
import subprocess
import sys

import pytest

from orchestrator.printers.latex import escaped, latex, latex_document
from orchestrator.tables.fill import fill
from sweeps.table import TABLE_FOLDER, load_table
from tests.support.result_rows import row_of

TABLES = sorted(path.stem for path in TABLE_FOLDER.glob("*.yaml"))
DEBIAN = "texlive-latex-base texlive-latex-recommended texlive-latex-extra"


def filled(name, seeds=(1, 2)):
    table = load_table(name)
    rows = [
        row_of(cell.__class__(**{**cell.__dict__, "seed": seed}), 50.0 + seed + i / 7)
        for seed in seeds
        for i, cell in enumerate(table.cells)
        if i % 11 != 5
    ]
    return fill(table, rows)


def test_the_rows_of_table_3_read_as_the_paper_sets_them():
    table = load_table("table3")
    text = latex(fill(table, [row_of(cell, 70.0 + i / 8) for i, cell in enumerate(table.cells)]))

    assert r"PASCAL VOC 2012 &  & \multicolumn{3}{c}{ResNet-50} & \multicolumn{3}{c}" in text
    assert r"\cmidrule(lr){3-5} \cmidrule(lr){6-8}" in text
    assert r"Supervised Baseline & \multirow{9}{*}{321} & 70.0 &" in text
    assert r"{\scriptsize\color{gray}61.2 (+8.8)}" in text
    assert r"CAC\textsuperscript{q,1} &  & 70.1 &" in text
    assert r"IPixMatch &  & \textbf{71.5} & \underline{71.6} &" in text
    assert r"\textit{Improvement} &  & \textit{+0.8} &" in text


def test_every_letter_that_latex_reads_as_its_own_is_escaped():
    assert escaped(r"#P1_a & 5% {x} $~^\ ") == (
        r"\#P1\_a \& 5\% \{x\} \$\textasciitilde{}\textasciicircum{}\textbackslash{} "
    )


@pytest.mark.parametrize("has_grey", [True, False])
def test_latex_compiles_with_xcolor_and_without(tmp_path, has_grey):
    if shutil.which("pdflatex") is None:
        assert os.environ.get("CI") != "true", f"CI needs pdflatex: apt-get install {DEBIAN}"
        sys.stderr.write(f"left out: compiling LaTeX needs pdflatex (apt-get install {DEBIAN})\n")
        return
    bodies = [latex(filled(name)) for name in TABLES]
    odd = escaped('#P1_a & 5% {x} $~^\\ <b> | "q" \u00b1 \u2191')
    text = latex_document([*bodies, odd])
    (tmp_path / "all.tex").write_text(text if has_grey else text.replace(",xcolor", ""))

    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )

    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


@pytest.mark.parametrize("name", TABLES)
def test_all_lines_of_a_table_have_the_same_number_of_columns(name):
    text = latex(filled(name)).partition(r"\toprule")[2].partition(r"\bottomrule")[0]
    widths = set()
    for line in text.splitlines():
        if "&" in line:
            spans = sum(int(part[0]) - 1 for part in line.split(r"\multicolumn{")[1:])
            widths.add(line.replace(r"\&", "").count("&") + spans)
    assert len(widths) == 1
