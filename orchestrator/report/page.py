"""One self-contained HTML page: no script, no request, light and dark, phone and print."""

from html import escape
from pathlib import Path

from orchestrator.report import evidence, overview
from orchestrator.report.markup import code
from orchestrator.report.material import Material
from orchestrator.tables.entry_ids import slug

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


def page(material: Material) -> str:
    """The whole page."""
    grid = material.plan.grid
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{slug(name)}">{name}</a></li>' for name in _SECTIONS)
    made = f"{material.made:%Y-%m-%d %H:%M} UTC"
    body = "\n".join(section(material) for section in _SECTIONS.values())
    command = f"python -m orchestrator report {grid.word} root={material.plan.root}"
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
<footer><p>Made by {code(command)} from the results under {code(material.plan.root)}.</p></footer>
</body>
</html>
"""
