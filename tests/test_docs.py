"""What the Markdown pages of the project promise: links that lead somewhere, files that exist."""

import re
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.commands.errors import ERROR_KINDS
from orchestrator.failures import Failure
from orchestrator.options import LaunchOptions, SlurmOptions, parse
from sweeps import grid, table
from sweeps.grid import load_grid
from sweeps.table import load_table
from sweeps.yaml_spec import AXES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(
    r"`((?:datasets|trainer|sweeps|slurm|orchestrator|tests|benchmarks|docs)/[\w./-]+\.\w+)`"
)

WRITTEN_FILE = re.compile(r"`([\w/.]+)`:\n\n```")  # whose content follows, for readers to write


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    targets = [t for t in LINK.findall(page.read_text()) if not t.startswith(("http", "mailto:"))]

    for target in targets:
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{relative(page)} links to {target}"
        assert not anchor or anchor in anchors(path), f"{relative(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_to_the_web_are_whole_addresses(page: Path) -> None:
    for target in (t for t in LINK.findall(page.read_text()) if t.startswith("http")):
        parts = urlsplit(target)
        assert parts.scheme == "https", target
        assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), target


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / t).resolve() for t in LINK.findall(index.read_text())}

    assert {page for page in PAGES if page.is_relative_to(index.parent)} - {index} <= linked


def yaml_blocks(page: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def test_the_grids_and_tables_of_the_pages_are_read(tmp_path: Path) -> None:
    _, own_table, own_grid = yaml_blocks("getting_started.md")
    (crossed,), (drawn,) = yaml_blocks("grid.md"), yaml_blocks("tables.md")
    files = {"my_table": own_table, "my_grid": own_grid, "crossed": crossed, "drawn": drawn}
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)

    assert len(load_grid(str(tmp_path / "my_grid.yaml")).cells) == 9  # three methods, three seeds
    assert len(load_grid(str(tmp_path / "crossed.yaml")).cells) == 9
    assert len(load_table(str(tmp_path / "drawn.yaml")).cells) == 4


@pytest.mark.parametrize(
    ("page", "keys"),
    [
        ("grid.md", {"grid": grid._KEYS, "entry": grid._GROUP_KEYS}),
        (
            "tables.md",
            {
                "table": table._KEYS,
                "block": table._BLOCK_KEYS,
                "row": table._ROW_KEYS,
                "extension": table._EXTENSION_KEYS,
                "rerun": table._RERUN_KEYS,
            },
        ),
    ],
)
def test_the_keys_of_grids_and_tables_are_those_that_are_read(
    page: str, keys: dict[str, tuple[str, ...]]
) -> None:
    text = (ROOT / "docs" / page).read_text()
    listed = re.findall(r"^\| (\w+) \| `(\w+)` \| [^|]+ \| [^|]+ \|$", text, re.M)

    assert sorted(listed) == sorted((place, key) for place in keys for key in keys[place])


def test_the_axes_of_the_page_on_grids_are_those_of_a_cell() -> None:
    text = (ROOT / "docs/grid.md").read_text()
    listed = text.partition("| axis | what it chooses |")[2].partition("\n\n")[0]

    assert re.findall(r"^\| `(\w+)`", listed, re.M) == [*AXES, "seed"]


def test_the_site_file_of_the_slurm_page_names_options(tmp_path: Path) -> None:
    (site,) = yaml_blocks("running/slurm.md")
    (tmp_path / "site.yaml").write_text(site)

    options, _ = parse([f"slurm={tmp_path / 'site.yaml'}"])

    assert options.slurm == SlurmOptions(
        partition="gpu",
        account="my_project",
        minutes=720,
        memory_gb=64.0,
        extra=("gres=gpu:a100:1",),
        setup=("flock /local/voc.lock rsync -a /shared/data/voc/ /local/voc/",),
    )


def test_the_table_of_slurm_has_every_setting_with_its_default() -> None:
    page = (ROOT / "docs/running/slurm.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| `?(.*?)`? \|", page, re.M))

    for item in fields(SlurmOptions):
        usual = getattr(SlurmOptions(), item.name)
        has_words = usual in ("", (), 0)  # such as "the site's"
        assert listed[item.name] == str(usual).removesuffix(".0") or has_words, item.name
    for name in ("ranks", "cpus_per_rank", "concurrency"):
        assert listed[name] == str(getattr(LaunchOptions(), name))


def test_every_error_code_has_a_cure_on_the_page_for_troubles() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (\d+) \| [^|]+ \| [^|]+ \|$", page, re.M)

    assert sorted(listed) == sorted((kind.code, str(kind.exit_code)) for kind in ERROR_KINDS)


def test_every_failure_stands_on_its_page() -> None:
    failures = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/troubleshooting.md").read_text(), re.M)

    assert {failure.value for failure in Failure} <= set(failures)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    missing = {name for name in NAMED_FILE.findall(text) if not (ROOT / name).exists()}

    assert missing - set(WRITTEN_FILE.findall(text)) == set()


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
