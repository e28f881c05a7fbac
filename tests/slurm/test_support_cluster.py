"""The Slurm of these tests leaves nothing behind, however its tests end."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.slurm.calls import CHECKOUT
from tests.support.slurm.session import sweep
from tests.support.wait_for import wait_until

PROGRAM = """
from tests.support.slurm.session import running_box
with running_box(accounting=False) as box:
    print(box.folder, flush=True)
    input()
"""


def processes_in(folder: Path) -> list[str]:
    """What runs with a box's configuration, seen or unseen by its nodes."""
    pids = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = environ.read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in words:
            pids.append(environ.parent.name)
    return pids


def test_a_killed_session_takes_its_daemons_along_and_the_next_one_sweeps(
    bare_cluster: object,
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    assert len(processes_in(folder)) >= 7  # a controller, three nodes, and the first of each node

    owner.kill()
    owner.communicate()
    wait_until(lambda: not processes_in(folder))
    assert folder.exists()
    sweep(folder.parents[1])
    assert not folder.parent.exists()
