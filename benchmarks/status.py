"""Times of status, plan and tables: ``python -m benchmarks.status [cells=10000] [rounds=5]``.

Of the cells four fifths are done, one in twenty has failed, one in ten was cut off at a checkpoint,
the rest never ran. Each time is of a fresh process from its start to its last line,
with Python's bytecode and Hydra's compositions kept by the first one, as on users' machines.
"""

import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from orchestrator.results.row import SCHEMA
from orchestrator.results.store import Row
from orchestrator.storage.local_root import LocalRoot
from sweeps.cell_configs import cell_configs
from sweeps.grid import Grid, load_grid
from trainer.checkpoint_manifest import CHECKPOINTS, Manifest, stem
from trainer.config.fingerprint import config_json, fingerprint
from trainer.config.schema import TrainConfig

KINDS = 20  # cells of one seed


def main() -> None:
    """Print the times."""
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    cells, rounds = int(given.pop("cells", "10000")), int(given.pop("rounds", "5"))
    assert not given, f"unknown: {given}"
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        path, root = Path(folder) / "many.yaml", f"{folder}/out"
        path.write_text(yaml.safe_dump(grid_of(cells // KINDS)))
        prepare(load_grid(str(path)), root)
        words = [str(path), f"root={root}"]
        imports = "import orchestrator.commands.verbs, orchestrator.display.status"
        runs = {
            "imports alone": ["-c", imports],
            f"status of {cells} cells": ["-m", "orchestrator", "status", *words],
            "the same, show=all": ["-m", "orchestrator", "status", *words, "show=all"],
            "the same, --json": ["-m", "orchestrator", "status", *words, "--json"],
            f"plan of {cells} cells": ["-m", "orchestrator", "plan", *words],
            f"tables of {cells} cells": ["-m", "orchestrator", "tables", *words],
        }
        for name, call in runs.items():
            report(name, call, rounds)


def grid_of(seeds: int) -> dict[str, object]:
    """A grid of `KINDS` cells per seed."""
    product = {
        "split": ["p1_1of16", "p1_1of8", "p1_1of4", "p2_92", "p2_183"],
        "backbone": ["resnet50", "resnet101"],
        "loss": ["none", "kl"],
    }
    base = {"recipe": "voc", "crop": 321, "method": "unimatch_star"}
    cells = [{"base": base, "product": product}]
    return {"title": "Many cells", "cells": cells, "seeds": list(range(seeds))}


def prepare(grid: Grid, root: str) -> None:
    """Rows in one compacted file, and run folders of all cells that ran."""
    rows = []
    for number, (cell, config) in enumerate(cell_configs(grid.cells).items()):
        place = number % 20
        if place < 17:
            status = "done" if place < 16 else "failed"
            rows.append(_row(cell.key, config, status))
        if place < 19:
            _leave_behind(LocalRoot(Path(root)).run(cell.key).folder, config)
    folder = Path(root) / "results" / "rows"
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows, SCHEMA).sort_by([("key", "ascending")])
    pq.write_table(table, folder / "compacted-20260101T000000Z-000000000000.parquet")


def _row(key: str, config: TrainConfig, status: str) -> dict[str, object]:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    axes = dict(zip(("recipe", "split", "backbone"), key.split("."), strict=False))
    row = Row(
        **axes,
        crop=config.data.crop,
        method=config.method.name,
        loss=config.loss.name,
        seed=config.seed,
        attempt=1,
        status="done" if status == "done" else "failed",
        fingerprint=fingerprint(config),
        config_json=config_json(config),
        started=moment,
        finished=moment,
        error_class=None if status == "done" else "diverged",
        error_text=None if status == "done" else "Traceback\nDiverged: the loss is no number",
        best_miou_percent=70.0 if status == "done" else None,
        seconds=1e4,
        host="node-1",
    )
    return {name: getattr(row, name) for name in SCHEMA.names}


def _leave_behind(folder: Path, config: TrainConfig) -> None:
    """What a run leaves in its folder."""
    (folder / CHECKPOINTS).mkdir(parents=True)
    (folder / "attempts" / "0001").mkdir(parents=True)
    (folder / "lock").touch()
    record = Manifest(400, 4, "0" * 64, 1, fingerprint(config), config_json(config), {})
    (folder / CHECKPOINTS / f"{stem(400)}.json").write_text(record.text())
    text = '{"step": 400, "total_steps": 8000, "epoch": 4, "epochs": 80, "miou_percent": 61.0}'
    (folder / "progress.json").write_text(text)


def report(name: str, words: list[str], rounds: int) -> None:
    """Time one process: the shortest and the least work of some rounds."""
    clock, work = [], []
    for _ in range(rounds):
        started, before = time.monotonic(), os.times()
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=False)
        after = os.times()
        cpu = after.children_user + after.children_system
        cpu -= before.children_user + before.children_system
        clock.append(time.monotonic() - started)
        work.append(cpu)
    print(f"{name:26} {min(clock):6.2f} s, {min(work):6.2f} s of one core")


if __name__ == "__main__":
    main()
