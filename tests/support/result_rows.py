"""Rows of results for tests."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from orchestrator.planning.plan import make_plan
from orchestrator.results.compaction import compact
from orchestrator.results.store import Row, publish
from orchestrator.storage.root import Root
from sweeps.cell import Cell
from sweeps.grid import load_grid
from tests.support.strategies import cells

DRAWN = str(Path(__file__).with_name("drawn.yaml"))  # a grid of 16 cells
DRAWN_TABLE = str(Path(__file__).with_name("drawn_table.yaml"))  # its table
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def row_of(cell: Cell, miou_percent: float | None = None, **fields: Any) -> Row:
    """A done row of a cell, or a failed one when no mIoU is given."""
    values: dict[str, Any] = {
        "attempt": 1,
        "status": "failed" if miou_percent is None else "done",
        "fingerprint": "f" * 64,
        "config_json": f'{{"recipe":"{cell.recipe}","seed":{cell.seed}}}',
        "started": START,
        "finished": START,
        "best_miou_percent": miou_percent,
        "last_miou_percent": None if miou_percent is None else miou_percent - 1,
        "git_commit": "0123456789abcdef",
        "torch": "2.13.0",
        "device": "cpu",
        "world_size": 1,
        "best_weights_sha256": "b" * 64,
        "weights_sha256": "a" * 64,
    }
    return Row(**asdict(cell), **(values | fields))


def publish_all(root: Root, rows: Sequence[Row]) -> None:
    """Publish rows; for processes of their own."""
    for row in rows:
        publish(root, row)


def compact_until(root: Root, path: Path) -> None:
    """Compact again and again until a file exists."""
    while not path.exists():
        compact(root)
        time.sleep(0.05)  # readers and writers get their turn on a machine with few cores


_numbers = st.floats(allow_nan=False) | st.none()
_times = st.integers(0, 10**15).map(lambda us: START + timedelta(microseconds=us))

rows = st.builds(
    row_of,
    cells,
    _numbers,
    attempt=st.integers(1, 9999),
    error_text=st.text(max_size=50) | st.none(),
    best_iou_percent=st.lists(_numbers, max_size=5).map(tuple),
    class_names=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    best_confusion=st.sampled_from([(), ((1, 2), (3, 2**40))]),
    gpu_seconds=_numbers,
    peak_memory_bytes=st.integers(0, 2**50) | st.none(),
    git_dirty=st.booleans() | st.none(),
    started=_times,
    finished=_times,
)


def publish_drawn(root: Root) -> None:
    """A done row for each cell of the grid DRAWN, of today's configuration: 50, 51, ... mIoU."""
    cells = load_grid(DRAWN).cells
    for number, planned in enumerate(make_plan(DRAWN, root).cells):
        fields = {"fingerprint": planned.fingerprint, "config_json": planned.config_json}
        publish(root, row_of(cells[number], 50.0 + number, **fields))
