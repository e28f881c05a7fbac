"""The house rules that a machine can check; what they are for stands in the README."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "datasets": set(),
    "slurm": set(),
    "trainer": {"datasets"},
    "sweeps": {"datasets", "trainer"},
    "orchestrator": {"datasets", "trainer", "sweeps", "slurm"},
}
LIGHT = [
    "datasets.location",
    "datasets.known.registry",
    "datasets.splits.lists",
    "trainer.config.compose",
    "trainer.config.fingerprint",
    "trainer.checkpoint_manifest",
    "sweeps.grid",
    "sweeps.table",
    "sweeps.cell_configs",
    "orchestrator.planning.plan",
    "orchestrator.results.store",
    "orchestrator.commands.verbs",
    "orchestrator.printers.write",
    "orchestrator.display.watch",
    "orchestrator.__main__",
]
SOURCES = sorted(p for folder in MAY_IMPORT for p in (ROOT / folder).rglob("*.py"))
PACKAGES = sorted({p.parent for p in SOURCES})
MAX_LINES = 500  # of a file; cut where a subject ends, not because it is long
MAX_FUNCTION = 50  # lines
MAX_WIDTH = 18  # Python files in a folder, beside __init__ and __main__
SMALL = 60  # lines; a file below needs a reason, which stands here
REASONS = {
    "one file per method, back end or format, found by its name": (
        "trainer/methods/supervised.py",
        "orchestrator/backends/auto.py",
        "orchestrator/backends/inline.py",
        "orchestrator/export/csv.py",
        "orchestrator/export/tensorboard.py",
        "orchestrator/printers/json.py",
        "orchestrator/printers/markdown.py",
        "orchestrator/printers/terminal.py",
    ),
    "a registry or an interface, to which others add": (
        "datasets/known/registry.py",
        "orchestrator/commands/errors.py",
        "orchestrator/export/formats.py",
        "orchestrator/printers/write.py",
        "trainer/config/families.py",
    ),
    "the only place where a decision is taken": (
        "datasets/storage/open.py",
        "orchestrator/storage/open.py",
        "trainer/config/first_weights.py",
    ),
    "a door of its own": ("slurm/job_start.py",),
    "everybody imports it, so it may import nothing": (
        "datasets/errors.py",
        "datasets/import_guard.py",
        "datasets/progress.py",
        "trainer/environment.py",
        "trainer/methods/st_plusplus_stages.py",
        "orchestrator/results/arrow.py",
        "orchestrator/storage/s3_storage.py",
    ),
    "a subject of its own between two that do not know each other": (
        "datasets/prepare/defects.py",
        "trainer/methods/moving_average.py",
        "orchestrator/backends/ray/outcome_files.py",
        "orchestrator/report/figures.py",
        "orchestrator/report/html.py",
        "orchestrator/report/page.py",
    ),
}
MAX_TOP = {"datasets": 14, "orchestrator": 6}  # files directly in a room, beside its doors

# Words of the glossary in the README have one meaning; these stood for the same things before.
BANNED_NAMES = {
    *("alongside", "calm_logits", "desk", "Desk", "dress", "ema_speaks", "engage", "found", "told"),
    *("hungry", "hurry", "lay_down", "let_go", "mailbox", "Mailbox", "opinions", "Opinions"),
    *("Places", "RunPlace", "GridPlace", "sight", "Sight", "Sighting", "Stages", "Wish", "wish"),
}
BANNED_FILES = {"utils", "common", "helpers", "misc", "base_utils", "tools"}
# Documents that a reader of the repository does not have.
UNKNOWN_SOURCES = re.compile(r"\bpart_[ab]\b|\bfield notes?\b", re.IGNORECASE)
DURATION = re.compile(r"assert .*(process_time|perf_counter|monotonic|thread_time)(_ns)?\(\) *-")


def module_of(source: Path) -> str:
    return ".".join(source.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(source) for source in SOURCES}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def syntax(source: Path) -> ast.Module:
    """The file, parsed once for all tests."""
    return ast.parse(source.read_text())


def imported(source: Path) -> Iterator[str]:
    for node in ast.walk(syntax(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module or ""


def public_names(source: Path) -> Iterator[str]:
    """What a module defines at its top level under a public name."""
    for node in syntax(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


@pytest.mark.parametrize("source", SOURCES, ids=relative)
def test_a_folder_imports_only_the_folders_below_it(source: Path) -> None:
    folder = source.relative_to(ROOT).parts[0]
    above = {name.split(".")[0] for name in imported(source)} & set(MAY_IMPORT)
    assert above - MAY_IMPORT[folder] - {folder} == set()


@pytest.mark.parametrize("package", PACKAGES, ids=relative)
def test_what_lies_in_one_folder_imports_without_a_circle(package: Path) -> None:
    """Children of a folder are its files and sub-folders; an import inside a function counts."""
    prefix = module_of(package / "__init__.py") + "."
    depth = prefix.count(".")
    graph: dict[str, set[str]] = defaultdict(set)
    for source in (p for p in SOURCES if p.is_relative_to(package) and p.name != "__init__.py"):
        child = module_of(source).split(".")[depth]
        names = (name for name in imported(source) if name.startswith(prefix))
        graph[child] |= {name.split(".")[depth] for name in names} - {child}

    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)  # raises on a circle


@pytest.mark.parametrize("source", SOURCES, ids=relative)
def test_files_and_functions_stay_small(source: Path) -> None:
    assert len(source.read_text().splitlines()) <= MAX_LINES
    for node in ast.walk(syntax(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION, f"{node.name} is too long"


@pytest.mark.parametrize("package", PACKAGES, ids=relative)
def test_a_folder_can_be_seen_at_once(package: Path) -> None:
    doors = ("__init__.py", "__main__.py")
    files = sorted(path.name for path in package.glob("*.py") if path.name not in doors)

    assert len(files) <= MAX_TOP.get(relative(package), MAX_WIDTH)
    assert not {name.removesuffix(".py") for name in files} & BANNED_FILES


def test_a_small_file_has_a_reason() -> None:
    doors = ("__init__.py", "__main__.py")
    small = {
        relative(path)
        for path in SOURCES
        if path.name not in doors and len(path.read_text().splitlines()) < SMALL
    }

    assert small == {path for paths in REASONS.values() for path in paths}


# What the module of every back end offers; see `Backend` in orchestrator/backends/base.py.
OFFERED = {"main", "detaches", "ignores", "pools"}


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_public_name_has_one_meaning_in_a_room(room: str) -> None:
    places = defaultdict(list)
    for source in (ROOT / room).rglob("*.py"):
        for name in set(public_names(source)):
            places[name].append(relative(source))

    twice = {
        name: files for name, files in places.items() if len(files) > 1 and name not in OFFERED
    }

    assert twice == {}


@pytest.mark.parametrize("source", SOURCES, ids=relative)
def test_names_are_words_of_the_glossary(source: Path) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(source.read_text()).readline)
    names = {token.string for token in tokens if token.type == tokenize.NAME}

    assert names & BANNED_NAMES == set()


def test_sources_cite_only_what_a_reader_has() -> None:
    cited = [
        f"{relative(path)}:{number}"
        for path in sorted(ROOT.rglob("*.py"))
        if path != Path(__file__).resolve() and ".venv" not in path.parts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNKNOWN_SOURCES.search(line)
    ]

    assert cited == []


def test_no_test_asserts_a_duration() -> None:
    timed = [
        f"{relative(path)}:{number}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if DURATION.search(line)
    ]

    assert timed == [], "these machines are shared; measure in benchmarks/"


@pytest.mark.parametrize("module", LIGHT)
def test_planning_modules_import_neither_torch_nor_ray(module: str) -> None:
    probe = f"import sys, {module}; sys.exit(bool({{'torch', 'ray'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=False).returncode == 0


def test_the_trainer_alone_needs_neither_ray_nor_submitit() -> None:
    probe = "import sys, trainer.run; sys.exit(bool({'ray', 'submitit'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=False).returncode == 0


def test_our_datasets_package_is_not_hidden_by_another() -> None:
    import datasets

    assert Path(datasets.__file__).parent == ROOT / "datasets"
