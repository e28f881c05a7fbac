"""The house rules that a machine can check."""

import ast
import subprocess
import sys
from collections.abc import Iterator
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
    "datasets.splits.lists",
    "trainer.config.compose",
    "trainer.config.fingerprint",
    "trainer.checkpoint_manifest",
    "sweeps.grid",
    "sweeps.table",
    "sweeps.cell_configs",
    "orchestrator.planning.plan",
    "orchestrator.results.store",
    "orchestrator.commands",
    "orchestrator.printers.write",
    "orchestrator.display.watch",
    "orchestrator.__main__",
]
SOURCES = sorted(p for folder in MAY_IMPORT for p in (ROOT / folder).rglob("*.py"))


def imported(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_folder_imports_only_the_folders_below_it(source: Path) -> None:
    folder = source.relative_to(ROOT).parts[0]
    above = {name.split(".")[0] for name in imported(source)} & set(MAY_IMPORT)
    assert above - MAY_IMPORT[folder] - {folder} == set()


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(source: Path) -> None:
    assert len(source.read_text().splitlines()) <= 500
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, f"{node.name} is too long"


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
