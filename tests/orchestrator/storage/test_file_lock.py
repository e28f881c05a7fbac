"""A folder has one owner, and loses it with the owner's process."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.storage.file_lock import FRESH_SECONDS, Busy, file_lock, lock_owner
from tests.support.lab import CHECKOUT, wait_until

HOLD = """
import sys, time
from pathlib import Path
from orchestrator.storage.file_lock import file_lock
with file_lock(Path(sys.argv[1]), "attempt 7"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def other_process(path: Path, seconds: float = 60.0) -> "subprocess.Popen[str]":
    call = [sys.executable, "-c", HOLD, str(path), str(seconds)]
    process = subprocess.Popen(call, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_a_folder_held_by_another_process_is_refused_with_its_name(tmp_path: Path) -> None:
    process = other_process(tmp_path / "lock")

    with (
        pytest.raises(Busy, match=f"attempt 7, process {process.pid} on "),
        file_lock(tmp_path / "lock", "mine"),
    ):
        pass

    end(process)


def test_a_killed_owner_leaves_the_folder_free_at_once(tmp_path: Path) -> None:
    process = other_process(tmp_path / "lock")

    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    with file_lock(tmp_path / "lock", "mine"):
        found = lock_owner(tmp_path / "lock")
        assert found is not None
        assert found.pid == os.getpid()


def test_looking_neither_takes_the_lock_nor_believes_a_dead_owner(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert lock_owner(path) is None
    process = other_process(path)
    assert str(lock_owner(path)).startswith("attempt 7")
    end(process)
    assert path.read_text() != ""

    assert lock_owner(path) is None


def test_a_dying_owner_is_waited_for(tmp_path: Path) -> None:
    process = other_process(tmp_path / "lock", seconds=0.5)

    with file_lock(tmp_path / "lock", "mine", wait_seconds=10.0):
        process.communicate()
        assert process.returncode == 0


def test_who_only_looks_for_an_instant_keeps_nobody_from_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [looking]).start()

    with file_lock(path, "mine"):
        assert lock_owner(path) is not None


def test_another_host_holds_the_folder_while_its_heartbeat_is_fresh(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    elsewhere = {"host": "elsewhere", "pid": 1, "what": "attempt 2", "since": "noon"}
    path.write_text(json.dumps(elsewhere))

    assert str(lock_owner(path)) == "attempt 2, process 1 on elsewhere, since noon"
    with pytest.raises(Busy, match="elsewhere"), file_lock(path, "mine"):
        pass

    old = time.time() - FRESH_SECONDS - 1.0
    os.utime(path, (old, old))
    assert lock_owner(path) is None
    with file_lock(path, "mine"):
        pass


def test_an_ended_lock_leaves_no_name(tmp_path: Path) -> None:
    with file_lock(tmp_path / "lock", "mine") as hold:
        hold.describe("attempt 12")
        assert json.loads((tmp_path / "lock").read_text())["what"] == "attempt 12"

    assert (tmp_path / "lock").read_text() == ""


def test_of_eight_processes_one_holds_the_folder_at_a_time(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from orchestrator.storage.file_lock import file_lock\n"
        "folder = Path(sys.argv[1])\n"
        "with file_lock(folder / 'lock', 'x', wait_seconds=60):\n"
        "    (folder / 'inside').touch(exist_ok=False); time.sleep(0.05)\n"
        "    (folder / 'inside').unlink()\n"
    )
    call = [sys.executable, "-c", script, str(tmp_path)]
    processes = [subprocess.Popen(call, cwd=CHECKOUT) for _ in range(8)]

    wait_until(lambda: all(process.poll() is not None for process in processes))

    assert [process.returncode for process in processes] == [0] * 8


def elsewhere(path: Path, ahead_seconds: float) -> None:
    """A lock of another host whose clock is ahead, which has just sent a heartbeat."""
    owner = {"host": "elsewhere", "pid": 1, "what": "theirs", "since": "x"}
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() + ahead_seconds,) * 2)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine keeps what it saw."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("ahead", [2 * FRESH_SECONDS, 3600.0, 400 * 86400.0])
def test_a_dead_lock_from_a_clock_ahead_is_free_once_its_time_stands_still(
    tmp_path: Path, cache: Path, ahead: float
) -> None:
    path = tmp_path / "run" / "lock"
    path.parent.mkdir()
    elsewhere(path, ahead)
    assert lock_owner(path) is not None  # seen for the first time
    (note,) = (cache / "ipixmatch" / "locks_ahead").iterdir()

    os.utime(note, (time.time() - FRESH_SECONDS,) * 2)  # that was a while ago

    assert lock_owner(path) is None
    with file_lock(path, "mine"):
        pass


def test_a_live_lock_from_a_clock_ahead_stays_held(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "lock"
    elsewhere(path, 3600.0)
    assert lock_owner(path) is not None
    (note,) = (cache / "ipixmatch" / "locks_ahead").iterdir()
    os.utime(note, (time.time() - FRESH_SECONDS,) * 2)

    elsewhere(path, 3610.0)  # its next heartbeat

    assert lock_owner(path) is not None
    advice = f"if it has died, the lock is free {FRESH_SECONDS:g} s after"
    with pytest.raises(Busy, match=advice), file_lock(path, "mine"):
        pass


def test_nobody_is_told_to_stop_a_process_that_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "lock"
    path.parent.mkdir()
    parent = (
        "import fcntl, os, socket, subprocess, sys, json\n"
        "f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n"
        "owner = dict(host=socket.gethostname(), pid=os.getpid(), what='old', since='x')\n"
        "f.write(json.dumps(owner)); f.flush()\n"
        "child = subprocess.Popen(['sleep', '60'], pass_fds=[f.fileno()], stdout=2)\n"
        "print(child.pid)\n"
    )
    call = [sys.executable, "-c", parent, str(path)]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
    try:
        said = r"no such process here.*`fuser '.*a b/lock'`"
        with pytest.raises(Busy, match=said) as refused, file_lock(path, "mine"):
            pass
        assert "stop it" not in str(refused.value)
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)
