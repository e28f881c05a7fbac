"""Writes the report of a grid."""

from html import escape
from pathlib import Path

from orchestrator.planning.plan import Plan
from orchestrator.printers.write import replace_file
from orchestrator.report import sections as evidence
from orchestrator.report import sections as overview
from orchestrator.report.data import ReportData, gather
from orchestrator.report.html import code
from orchestrator.tables.filled import Epoch
from orchestrator.tables.text import slug

# The browser itself refuses whatever would leave this file.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
_SECTIONS = {
    "Summary": overview.summary,
    "Tables": evidence.tables,
    "Curves": evidence.curves,
    "Classes": evidence.classes,
    "Confusion": evidence.confusion,
    "Pictures": evidence.pictures,
    "Cost": overview.costs,
    "Failures": overview.failures,
    "Cells": overview.cells,
    "Provenance": evidence.provenance,
}


def page(material: ReportData) -> str:
    """The whole page."""
    grid = material.plan.grid
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{slug(name)}">{name}</a></li>' for name in _SECTIONS)
    made = f"{material.made:%Y-%m-%d %H:%M} UTC"
    body = "\n".join(section(material) for section in _SECTIONS.values())
    root = material.plan.root.address
    command = f"python -m orchestrator report {grid.word} root={root}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(grid.title)}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#main">To the content</a>
<header>
<h1>{escape(grid.title)}</h1>
<p class="soft">Grid {code(grid.name)}, mIoU (%) at the {material.epoch} epoch, as of {made}.</p>
</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main id="main">
{body}
</main>
<footer><p>Made by {code(command)} from the results under {code(root)}.</p></footer>
</body>
</html>
"""


def report(plan: Plan, epoch: Epoch = "best") -> Path:
    """Write ``reports/<grid>.html`` below what is printed of the root, whole or not at all.

    Args:
        plan: the grid with its states.
        epoch: whose mIoU the tables print.

    Returns:
        The file.

    Raises:
        ResultsError: a file among the results is broken.
        OSError: the place cannot be written.
    """
    path = plan.root.printed / "reports" / f"{plan.grid.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, page(gather(plan, epoch)))
    return path
