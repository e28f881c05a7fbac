"""What people read of any root: no word of Python, and no number that nobody rounded."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.planning.plan import make_plan
from orchestrator.results.store import publish
from orchestrator.storage.local_root import LocalRoot
from sweeps.grid import load_grid
from tests.support.report_results import publish_drawn
from tests.support.result_rows import DRAWN, row_of

_UNREADABLE = re.compile(r"\b(None|nan|inf)\b|(?<![\w.])-?\d+\.\d{5,}(?!\w)")
_PICTURE = re.compile(r"data:[^\"]*")
_KEY = load_grid(DRAWN).cells[0].key
_VERBS = (
    ("plan",),
    ("plan", "price=2.5", "budget=1500h"),
    ("plan", "seeds=auto"),
    ("status",),
    ("tables",),
    ("tables", f"explain={_KEY}"),
    ("tables", "explain=drawn-table"),
    ("report",),
    ("diff", "with=paper"),
    ("reproduce", _KEY),
    ("query", "SELECT key, best_miou_percent, seconds FROM counted"),
)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, LocalRoot]:
    """A root without anything, some in which everything failed or half is done, and a full one."""
    folder = tmp_path_factory.mktemp("roots")
    made = {name: LocalRoot(folder / name) for name in ("fresh", "failed", "half", "full")}
    planned = make_plan(DRAWN, made["fresh"]).cells
    for number, (cell, plan) in enumerate(zip(load_grid(DRAWN).cells, planned, strict=True)):
        facts = {"fingerprint": plan.fingerprint, "config_json": plan.config_json}
        publish(made["failed"], row_of(cell, **facts))
        if number % 3 == 0:
            publish(made["half"], row_of(cell, 50.123456 + number / 3, **facts))
        elif number % 3 == 1:
            publish(made["half"], row_of(cell, **facts, error_class="bug", error_text=None))
        else:
            _begin(made["half"], plan.key)
    publish_drawn(made["full"], folder)
    return made


def _begin(root: LocalRoot, key: str) -> None:
    """A run that was killed in its first epoch."""
    run = root.run(key)
    run.attempt(1).mkdir(parents=True)
    known = {"step": 1, "total_steps": 90, "epochs": 3, "images_per_second": 0.0, "time": 1.0}
    run.progress.write_text(json.dumps(known | {"seconds_left": None, "miou_percent": None}))


@pytest.mark.parametrize("verb", _VERBS, ids=" ".join)
@pytest.mark.parametrize("name", ["fresh", "failed", "half", "full"])
def test_nothing_unreadable_is_printed(
    roots: Mapping[str, LocalRoot],
    capsys: pytest.CaptureFixture[str],
    name: str,
    verb: tuple[str, ...],
) -> None:
    main([verb[0], DRAWN, f"root={roots[name].address}", *verb[1:]])

    printed = capsys.readouterr()
    texts = [printed.out, printed.err]
    texts += [path.read_text() for path in _pages(Path(roots[name].address))]
    lines = [line for text in texts for line in _PICTURE.sub("", text).splitlines()]
    assert [line for line in lines if _UNREADABLE.search(line)] == []


def _pages(root: Path) -> list[Path]:
    """What people open; CSV is for programs and keeps every digit."""
    return [path for path in root.rglob("*") if path.suffix in (".md", ".tex", ".html")]
