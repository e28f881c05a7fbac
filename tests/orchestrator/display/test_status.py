"""What status and watch show, in terminals of any width and in none."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.__main__ import main
from orchestrator.display.status import cost_table, counts, plan_json, status_picture
from orchestrator.planning.plan import make_plan
from orchestrator.results.store import publish
from orchestrator.storage.local_root import LocalRoot
from sweeps.cell_configs import cell_configs
from sweeps.grid import load_grid
from tests.support.result_rows import DRAWN, row_of
from trainer.config.fingerprint import fingerprint, fingerprints

ROOT = Path(__file__).resolve().parents[3]
CELLS = load_grid(DRAWN).cells


@cache
def planned_cells():
    """The planned cells of the grid DRAWN; their fingerprints are the same under every root."""
    return make_plan(DRAWN, LocalRoot(Path("/nothing/here"))).cells


def put(root, number, score=None, **fields):
    planned = planned_cells()[number]
    facts = {"fingerprint": planned.fingerprint, "config_json": planned.config_json}
    publish(root, row_of(CELLS[number], score, **facts, **fields))


def drawn(root, *, width, most=None):
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(status_picture(make_plan(DRAWN, root), width=width, most=most))
    return captured.get().splitlines()


def test_failed_cells_come_first_and_done_ones_last(tmp_path):
    put(LocalRoot(tmp_path), 0, 51.25)
    put(LocalRoot(tmp_path), 7, error_class="diverged", error_text="Diverged: no number")

    lines = drawn(LocalRoot(tmp_path), width=200)

    assert CELLS[7].key in lines[2]
    assert CELLS[0].key in lines[17]
    assert "51.25" in lines[17]
    assert lines[-1].startswith("drawn: 16 cells: 1 done, 1 failed, 14 missing")


def test_the_plan_sums_up_what_each_method_costs(tmp_path):
    put(LocalRoot(tmp_path), 0, 51.25, seconds=10.0)
    plan = make_plan(DRAWN, LocalRoot(tmp_path), only="*.n10.resnet14_w8.*")
    console = Console(width=100, force_terminal=False)

    with console.capture() as captured:
        console.print(cost_table(plan, [cell.key for cell in plan.cells if cell.seconds][1:]))

    rows = [line.split() for line in captured.get().splitlines()]
    assert rows[1:] == [  # a step of four and four images costs twice one of eight labelled ones
        ["supervised_star", "1", "0", "8.0", "0", "s"],
        ["unimatch_star", "3", "3", "16.0", "1:00"],
    ]


def test_the_plan_says_which_cells_are_on_the_released_track(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "title: mine\ncells:\n  - base: {recipe: voc, split: p1_1of16, backbone: resnet50, "
        "crop: 512, method: cps, loss: none}\n"
    )

    common, released = (
        make_plan(str(file), LocalRoot(tmp_path), overrides=[f"track={track}"])
        for track in ("common", "released")
    )

    assert counts(common) == "mine: 1 cell: 1 missing"
    assert counts(released) == "mine: 1 cell (1 of track=released): 1 missing"
    (cell,) = json.loads(plan_json(released, {cell.key for cell in released.cells}))["cells"]
    assert cell["track"] == "released"


def test_work_between_two_trainings_of_a_running_cell_is_shown(tmp_path):
    root, key = LocalRoot(tmp_path), CELLS[0].key
    with root.own_run(key, "a start", wait_seconds=0.0) as owner:
        owner.begin(0)
        progress = {"step": 40, "total_steps": 110, "epoch": 2, "epochs": 6, "work": "masks 3/40"}
        owner.paths.progress.write_text(json.dumps(progress))

        lines = drawn(root, width=200)
        (cell, *_) = json.loads(plan_json(make_plan(DRAWN, root), ()))["cells"]
    ended = drawn(root, width=200)

    assert "work" in lines[1].split()
    assert re.search(r"running +2/6 +masks 3/40 +36%", lines[2])
    assert (cell["state"], cell["work"]) == ("running", "masks 3/40")
    assert "masks" not in " ".join(ended)


def test_what_is_not_shown_is_counted(tmp_path):
    put(LocalRoot(tmp_path), 0, 51.25)
    put(LocalRoot(tmp_path), 7, error_class="diverged", error_text="Diverged: no number")

    lines = drawn(LocalRoot(tmp_path), width=200, most=3)

    assert CELLS[7].key in lines[2]
    assert CELLS[1].key in lines[3]  # every state has its share of the room
    assert CELLS[0].key in lines[4]
    assert lines[-2].strip() == "and 13 more: 13 missing; show=all prints every cell"


def test_a_plan_counts_what_it_does_not_show(tmp_path, capsys):
    put(LocalRoot(tmp_path), 0, 51.25)
    words = ["plan", DRAWN, f"root={tmp_path}"]

    assert main([*words, "show=3"]) == 0
    few = capsys.readouterr().out
    assert main(words) == 0
    every = capsys.readouterr().out

    assert [cell.key in few for cell in CELLS[:4]] == [True, True, True, False]  # done, 2 missing
    assert "and 13 more: 13 missing; show=all prints every cell" in few
    assert "16 cells: 1 done, 15 missing; 15 would run" in few
    assert all(f"{cell.key} " in every for cell in CELLS)


@pytest.mark.parametrize("width", [72, 80, 100, 140])
def test_keys_and_states_are_whole_in_every_width(tmp_path, width):
    put(
        LocalRoot(tmp_path),
        7,
        error_class="diverged",
        error_text="Diverged: no number " + "x" * 200,
    )

    lines = drawn(LocalRoot(tmp_path), width=width)

    text = "\n".join(lines)
    assert max(len(line.rstrip()) for line in lines if line.startswith("synth")) <= width
    assert all(f"{cell.key} " in text for cell in CELLS)
    assert len(re.findall(r"\bmissing\b", text)) >= 15
    assert "Diverged: no" in " ".join(text.split())


def test_fingerprints_of_many_are_those_of_each(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("title: Seeds\ntables: [demo, table5]\nseeds: [0, 7, 12345]\n")
    found = {cell.key: config for cell, config in cell_configs(load_grid(str(path)).cells).items()}

    assert fingerprints(found) == {key: fingerprint(config) for key, config in found.items()}
    assert all(config.key == key for key, config in found.items())


@pytest.mark.parametrize("value", ["0", "few", "-1"])
def test_a_wrong_number_of_cells_is_refused(tmp_path, capsys, value):
    assert main(["status", DRAWN, f"root={tmp_path}", f"show={value}"]) == 2
    assert "give a number of cells, or all" in capsys.readouterr().err


def test_watch_without_a_terminal_says_one_line_and_ends_with_the_grid(tmp_path, capsys):
    for number in range(16):
        put(LocalRoot(tmp_path), number, 50.0)

    assert main(["watch", DRAWN, f"root={tmp_path}"]) == 0

    assert capsys.readouterr().out == "drawn: 16 cells: 16 done\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_watch_leaves_the_terminal_as_it_was(tmp_path, number):
    """A real terminal: the other screen is left, the cursor is back, the exit code is status's."""
    main_end, other_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "watch", DRAWN, f"root={tmp_path}"],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
    )
    os.close(other_end)
    seen = b""
    while b"16 missing" not in seen:
        seen += os.read(main_end, 65536)
    time.sleep(0.2)

    process.send_signal(number)
    while True:
        try:
            part = os.read(main_end, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(main_end)

    assert process.wait(timeout=60) == 10
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1
    after = seen[seen.index(b"\x1b[?1049l") :]
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")
    assert b"16 missing" in after
    assert b"Traceback" not in seen


def test_status_loads_nothing_that_it_does_not_show(tmp_path: Path) -> None:
    put(LocalRoot(tmp_path), 0, 40.0)
    put(LocalRoot(tmp_path), 1, 41.0)
    probe = (
        "import sys; from orchestrator.__main__ import main; "
        f"code = main(['status', {DRAWN!r}, 'root={tmp_path}']); "
        "print(sorted({'pandas', 'PIL', 'fsspec', 'asyncio', 'torch', 'ray'} & set(sys.modules)))"
    )

    command = [sys.executable, "-c", probe]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
