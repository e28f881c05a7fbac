"""The pages of docs/methods: every method has one, and its tables are those of code and YAML."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.table import load_table
from trainer.config.compose import compose
from trainer.config.help import FieldHelp, help_of_fields
from trainer.config.schema import MethodConfig, TrainConfig
from trainer.method_registry import METHODS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "methods"
PRESETS = {path.stem: path for path in sorted((ROOT / "sweeps" / "method").glob("*.yaml"))}
# Rows of the paper's tables that speak of a method, by their labels.
LABELS = {
    "supervised": "Supervised Baseline",
    "unimatch": "UniMatch",
    "cps": "CPS",
    "ps_mt": "PS-MT",
    "cac": "CAC",
    "u2pl": "U²PL",
    "ael": "AEL",
    "st_plusplus": "ST\\+\\+",
    "pc2seg_style": "PC²Seg",
}


def presets_of(algorithm: str) -> dict[str, dict[str, Any]]:
    """What the presets of an algorithm set, by their names; that of the tables' substrate first."""
    read = {name: yaml.safe_load(path.read_text()) for name, path in PRESETS.items()}
    own = {name: spec for name, spec in read.items() if spec["method"]["algorithm"] == algorithm}
    return dict(sorted(own.items(), key=lambda item: not item[0].endswith("_star")))


def set_by(spec: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a preset by their whole names."""
    for name, value in spec.items():
        if isinstance(value, dict):
            yield from set_by(value, f"{prefix}{name}.")
        elif prefix + name not in ("method.name", "method.algorithm"):
            yield prefix + name, value


def typed(value: Any) -> str:
    """A value as one types it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def preset_lines(algorithm: str) -> list[str]:
    """The rows of a page's table of presets."""
    return [
        f"| `{name}` | {', '.join(f'`{key}={typed(value)}`' for key, value in set_by(spec))} |"
        for name, spec in presets_of(algorithm).items()
    ]


def option_lines(algorithm: str, shared: list[str]) -> list[str]:
    """The rows of a page's table of options: of its group, and those that it shares with others."""
    preset = next(iter(presets_of(algorithm)))
    config = compose(["recipe=voc", "model=resnet50", f"method={preset}"])
    helps = {item.name: item for item in help_of_fields(TrainConfig)}
    group = [name for name in helps if name.startswith(f"method.{algorithm}.")]
    return [option_line(helps[name], config) for name in (*group, *shared)]


def option_line(item: FieldHelp, config: TrainConfig) -> str:
    """A row: name, value of the preset on VOC, choices and the sentence of the schema."""
    value: Any = config
    for part in item.name.split("."):
        value = getattr(value, part)
    choices = ", ".join(f"`{choice}`" for choice in item.choices)
    note = "; ".join(filter(None, [choices, item.note]))
    return f"| `{item.name}` | `{typed(getattr(value, 'name', value))}` | {note} |"


def figure_lines(algorithm: str) -> list[str]:
    """The rows of a page's table of published figures, which Tables III to V print."""
    lines = []
    label = LABELS.get(algorithm, "nothing")
    for number, numeral in ((3, "III"), (4, "IV"), (5, "V")):
        table = load_table(f"table{number}")
        for block in (*table.blocks, *((table.originals,) if table.originals else ())):
            for row in block.rows:
                if re.match(label, row.label):
                    printed = [value for value in row.published if value is not None]
                    digits = max(len(str(value).partition(".")[2]) for value in printed)
                    values = ["-" if x is None else f"{x:.{digits}f}" for x in row.published]
                    where = f"{row.label}, {block.label}"
                    source = row.source or "the re-run of IPixMatch's authors"
                    lines.append(f"| {numeral} | {where} | {' '.join(values)} | {source} |")
    return lines


def costs() -> dict[str, str]:
    """How many times the arithmetic of a supervised step a step takes, by preset."""
    page = (ROOT / "docs/running/performance.md").read_text()
    rows = re.findall(r"^\| `(\w+)`.*?((?:\| [^|]+ ){7})\|$", page, re.M)
    return {name: cells.split(" | ")[3].strip() for name, cells in rows}


def page_of(algorithm: str) -> str:
    return (FOLDER / f"{algorithm}.md").read_text()


def part(page: str, title: str) -> list[str]:
    """The rows of the table below a heading."""
    text = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [line for line in text.splitlines() if line.startswith("| ")][1:]


def test_every_method_has_a_page_and_every_preset_a_line_of_the_list() -> None:
    index = (FOLDER / "README.md").read_text()
    row = r"^\| `(\w+)` \| \[(\w+)\.md\]\((\w+)\.md\) \| .* \| ([\d.]+)"
    listed = re.findall(row, index, re.M)
    known = costs()

    assert {path.stem for path in FOLDER.glob("*.md")} - {"README"} == set(METHODS)
    assert {name: page for name, page, *_ in listed} == {
        name: algorithm for algorithm in METHODS for name in presets_of(algorithm)
    }
    for name, text, target, cost in listed:
        # Presets that differ in batch and rate alone cost the same for each image.
        assert (text, cost) == (target, known.get(name) or known[f"{name}_star"])


@pytest.mark.parametrize("algorithm", METHODS)
def test_the_presets_of_a_page_are_those_of_the_files(algorithm: str) -> None:
    page = page_of(algorithm)

    assert part(page, "Presets") == preset_lines(algorithm)
    for name in presets_of(algorithm):
        assert f"method={name}" in page


@pytest.mark.parametrize("algorithm", METHODS)
def test_the_options_of_a_page_are_those_of_the_schema(algorithm: str) -> None:
    lines = part(page_of(algorithm), "Options")
    names = re.findall(r"^\| `([\w.]+)`", "\n".join(lines), re.M)
    shared = [name for name in names if not name.startswith(f"method.{algorithm}.")]
    set_here = {key for spec in presets_of(algorithm).values() for key, _ in set_by(spec)}

    assert lines == option_lines(algorithm, shared)
    assert {key for key in set_here if key.startswith("method.")} <= set(names)


def test_every_group_of_options_belongs_to_a_page() -> None:
    groups = {item.name for item in fields(MethodConfig) if is_dataclass(item.type)}

    assert groups <= set(METHODS)


@pytest.mark.parametrize("algorithm", METHODS)
def test_a_page_names_the_pairs_the_cost_and_the_published_figures(algorithm: str) -> None:
    page, facts = page_of(algorithm), METHODS[algorithm]
    known = costs()
    cost = next(known[name] for name in presets_of(algorithm) if name in known)

    assert [name for name in (*facts.pairs, *facts.other_pairs) if f"`{name}`" not in page] == []
    assert f"{cost} times" in " ".join(page.split())
    assert part(page, "Published figures") == figure_lines(algorithm)


@pytest.mark.parametrize(
    "item", [i for i in help_of_fields(MethodConfig, "method.") if i.note], ids=lambda i: i.name
)
def test_the_help_of_an_option_says_what_it_is_and_not_only_of_what(item: FieldHelp) -> None:
    assert not re.match(r"(of|and|that|whose|with|before|until|drawn|times|intent)\b", item.note)
