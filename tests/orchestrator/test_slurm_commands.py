"""Following a cell, and leaving it."""

import signal
import subprocess
import sys
from pathlib import Path

from orchestrator.storage.paths import Places
from tests.orchestrator.launching import CHECKOUT, KL


def test_logs_of_every_rank_are_followed_until_ctrl_c(tmp_path: Path) -> None:
    place = Places.at(str(tmp_path)).run(KL)
    place.attempt(2).mkdir(parents=True)
    log = place.log(2)
    log.parent.mkdir()
    log.write_text("first rank\n")
    log.with_name("attempt-0002-rank-0001.log").write_text("second rank\n")
    call = [sys.executable, "-m", "orchestrator", "logs", KL, "-f", f"root={tmp_path}"]

    following = subprocess.Popen(
        call, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert following.stdout is not None
    with following.stdout as out:
        told = [out.readline() for _ in range(4)]
        with log.open("a") as more:
            more.write("later\n")
        told.append(out.readline())
        following.send_signal(signal.SIGINT)
        rest = out.read()

    assert following.wait() == 0
    assert [told[1], told[3], told[4]] == ["first rank\n", "second rank\n", "later\n"]
    assert rest == ""
