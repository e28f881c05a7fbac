"""How long the paper's tables take from many rows: ``python -m benchmarks.tables``.

Rows carry real configurations and 21 class scores, as those of finished runs do. Each time is of a
fresh process, from its start to the last file written. Settings: seeds (of the 100 cells, one file
a row) and many_seeds (compacted; 0 leaves them out).
"""

import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.table import settings
from datasets.randomness import KeyedRandom, Stream
from orchestrator.results.compaction import compact
from orchestrator.results.store import Row, publish
from orchestrator.storage.local_root import LocalRoot
from sweeps.cell import Cell
from sweeps.cell_configs import cell_configs
from sweeps.grid import load_grid, with_seeds
from trainer.config.fingerprint import config_json, fingerprint

# Rows of the paper's 100 cells over so many seeds, all of which the tables average.
DEFAULTS = {"seeds": "5", "many_seeds": "1000"}
ONCE = """
import sys
from pathlib import Path
from orchestrator.results.store import counted_rows
from orchestrator.printers.write import write_filled
from orchestrator.storage.open import open_root
from orchestrator.tables.fill import fill
from sweeps.grid import load_grid
from sweeps.table import load_table
tables = [load_table(name) for name in load_grid("paper").tables]
cells = [cell for table in tables for cell in table.cells]
rows = counted_rows(open_root(sys.argv[1]), cells, {})
write_filled([fill(table, rows) for table in tables], Path(sys.argv[1]) / "tables")
print(len(rows))
"""


def main(words: list[str]) -> None:
    """Print the times."""
    given = settings(words, DEFAULTS)
    seeds, many_seeds = int(given["seeds"]), int(given["many_seeds"])
    with tempfile.TemporaryDirectory() as folder:
        few, many = LocalRoot(Path(folder) / "few"), LocalRoot(Path(folder) / "many")
        for row in rows(seeds):
            publish(few, row)
        report(f"{100 * seeds} rows, one file each", few)
        compact(few)
        report(f"{100 * seeds} rows, compacted", few)
        if many_seeds:
            write_compacted(many, rows(many_seeds))
            report(f"{100 * many_seeds:,} rows, compacted", many)


def report(name: str, root: LocalRoot) -> None:
    """Time one whole run of the tables."""
    started, before = time.monotonic(), _cpu_seconds()
    command = [sys.executable, "-c", ONCE, root.address]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    seconds, cpu = time.monotonic() - started, _cpu_seconds() - before
    print(f"{name:28} {seconds:6.2f} s, {cpu:6.2f} s of one core  ({found} rows read)")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows(seeds: int) -> list[Row]:
    """Done rows of the paper's cells over as many seeds."""
    grid = load_grid("paper")
    composed = cell_configs(grid.cells, grid.overrides)
    texts = {cell: (config_json(c), fingerprint(c)) for cell, c in composed.items()}
    wanted = with_seeds(grid, range(1, seeds + 1)).cells
    return [_row(cell, *texts[_own(cell)]) for cell in wanted]


def write_compacted(root: LocalRoot, made: list[Row]) -> None:
    """The rows as one compacted file, without publishing each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from orchestrator.results.row import SCHEMA

    folder = root.folder / "results" / "rows"
    folder.mkdir(parents=True)
    plain = [{name: getattr(row, name) for name in SCHEMA.names} for row in made]
    table = pa.Table.from_pylist(plain, SCHEMA).sort_by([("key", "ascending")])
    path = folder / "compacted-20260101T000000Z-000000000000.parquet"
    pq.write_table(table, path, compression="zstd", row_group_size=20_000)
    print(f"{len(made)} rows in {path.stat().st_size / 2**20:.1f} MiB")


def _own(cell: Cell) -> Cell:
    return Cell.parse(cell.key.rpartition(".s")[0] + ".s12345")


def _row(cell: Cell, text: str, digest: str) -> Row:
    draws = KeyedRandom(cell.seed, Stream.RESAMPLING, len(cell.key), cell.crop)
    score = draws.uniform(70, 80)
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    return Row(
        **vars(cell),
        attempt=1,
        status="done",
        fingerprint=digest,
        config_json=text.replace('"seed":12345}', f'"seed":{cell.seed}}}'),
        started=moment,
        finished=moment,
        best_miou_percent=score,
        best_epoch=80,
        last_miou_percent=score - 0.3,
        last_epoch=80,
        best_iou_percent=tuple(score + label for label in range(21)),
        last_iou_percent=tuple(score - label for label in range(21)),
        class_names=tuple(f"class {label}" for label in range(21)),
        seconds=1e4,
        gpu_seconds=1e4,
        git_commit="0123456789abcdef",
        git_dirty=False,
        torch="2.13.0",
        device="NVIDIA H200",
        world_size=1,
        host="node-1",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
