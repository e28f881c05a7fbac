"""Grids, tables and roots of any name: what is accepted is read, printed and exported, too."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from orchestrator.__main__ import main
from orchestrator.launch import check_place
from orchestrator.planning.plan import make_plan
from orchestrator.results.store import publish
from orchestrator.storage.local_root import LocalRoot
from orchestrator.storage.s3_root import S3Root
from slurm.job_array import array_name
from sweeps.grid import load_grid
from tests.support.lab import BASE, ODD, SUPERVISED
from tests.support.result_rows import row_of

TABLE = {
    "title": "Own",
    "cell": {axis: BASE[axis] for axis in ("recipe", "crop", "backbone")},
    "columns": {"split": ["1of2"]},
    "blocks": [{"rows": [{"label": "Own", "cell": {"method": "supervised_star", "loss": "none"}}]}],
}


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """A grid of one table with a row, below a folder that is linked to; all of odd names."""
    (tmp_path / "disk").mkdir()
    folder = tmp_path / ODD
    folder.symlink_to(tmp_path / "disk")
    table, grid = folder / f"table {ODD}.yaml", folder / f"{ODD}.yaml"
    table.write_text(yaml.safe_dump(TABLE))
    grid.write_text(yaml.safe_dump({"title": "Own", "tables": [table.name]}))
    (planned,) = make_plan(str(grid), LocalRoot(folder)).cells
    fields = {"fingerprint": planned.fingerprint, "config_json": planned.config_json}
    publish(LocalRoot(folder), row_of(load_grid(str(grid)).cells[0], 50.0, **fields))
    return grid


@pytest.mark.parametrize(
    "words",
    [
        ["plan"],
        ["status"],
        ["tables"],
        ["tables", "--explain", SUPERVISED],
        ["query", "SELECT key FROM counted WHERE status='done'"],
        ["compact"],
        *(["export", f"to={kind}"] for kind in ("csv", "tensorboard", "mlflow", "wandb")),
    ],
    ids=" ".join,
)
def test_every_verb_reads_a_grid_and_writes_below_a_root_of_any_name(
    grid: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *more = words

    assert main([verb, str(grid), f"root={grid.parent}", *more]) == 0

    printed = capsys.readouterr()
    assert printed.err == ""
    if verb in ("tables", "export") and "--explain" not in more:
        paths = [line for line in printed.out.splitlines() if line.startswith("/")]
        assert paths
        assert all(Path(path).exists() for path in paths)
    else:
        assert SUPERVISED in printed.out or verb == "compact"


@pytest.mark.parametrize(
    ("backend", "name", "sign"),
    [("ray", "a:b", ":"), ("slurm", "a:b", ":"), ("slurm", "a\\b", "\\"), ("auto", "a\nb", "\n")],
)
def test_a_path_that_workers_cannot_be_told_is_refused(backend: str, name: str, sign: str) -> None:
    root = Path("/out") / name

    with pytest.raises(ValueError, match=re.escape(f"has {sign!r} in its path, and backend=")):
        check_place(backend, root, root / "grids" / "g")


@pytest.mark.parametrize("backend", ["inline", "ray", "slurm", "auto"])
def test_a_root_of_any_other_name_is_accepted(backend: str) -> None:
    check_place(backend, Path("/out") / ODD, Path("/out") / ODD / "grids" / f"{ODD}: x")


def test_slurm_never_sees_the_signs_of_a_grids_name() -> None:
    name = array_name(Path("/out/3f2a"), "gr|d (é) 1")

    assert name == "gr_d_____1-3f2a"


def test_the_command_that_shows_a_log_in_a_bucket_can_be_pasted() -> None:
    root = S3Root.at(f"s3://bucket/{ODD}")

    words = shlex.split(root.log_hint("cell", 1))

    assert words == ["python", "-m", "orchestrator", "logs", "cell", f"root={root.address}"]
