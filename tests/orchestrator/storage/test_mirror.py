"""A run's folder in a storage: whole at every moment, owned by its newest attempt."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from datasets.storage.base import Storage
from datasets.storage.open import open_storage
from orchestrator.storage.sync import Mirror, Overtaken
from tests.support import dataset_trees as trees


@pytest.fixture(params=["folder", "bucket"])
def storage(request, tmp_path) -> Storage:
    if request.param == "folder":
        return open_storage(str(tmp_path / "storage"))
    store = request.getfixturevalue("store")
    return open_storage(store.url)


@pytest.fixture
def run(tmp_path) -> Path:
    """A run's folder after its first checkpoint."""
    folder = tmp_path / "run"
    trees.put(folder / "config.json", "{}")
    trees.put(folder / "metrics.jsonl", '{"step": 1}\n')
    trees.put(folder / "checkpoints/step-00000001.pt", b"weights" * 1000)
    trees.put(folder / "checkpoints/step-00000001.json", "{}")
    trees.put(folder / "checkpoints/step-00000002.pt.tmp", b"half")
    trees.put(folder / ".lock", b"")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".tmp"
    }


def test_a_pushed_folder_is_pulled_elsewhere_as_it_was(storage, run, tmp_path) -> None:
    assert Mirror(storage, "runs/k", attempt=1).push(run) == 4

    assert Mirror(storage, "runs/k").pull(tmp_path / "other")

    assert content(tmp_path / "other") == content(run)
    assert Mirror(storage, "runs/k").read("config.json") == b"{}"
    assert not Mirror(storage, "runs/another").pull(tmp_path / "none")


def test_only_what_changed_goes_up_and_what_is_gone_is_forgotten(storage, run, tmp_path) -> None:
    mirror = Mirror(storage, "runs/k", attempt=1)
    mirror.push(run)
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    (run / "checkpoints/step-00000001.pt").unlink()

    assert mirror.push(run) == 1
    assert mirror.push(run) == 0

    Mirror(storage, "runs/k").pull(tmp_path / "other")
    assert content(tmp_path / "other") == content(run)
    assert len(storage.entries("runs/k/")) == 4  # three files and the manifest


def test_a_pull_removes_what_the_last_push_did_not_have(storage, run, tmp_path) -> None:
    Mirror(storage, "runs/k", attempt=1).push(run)
    other = tmp_path / "other"
    shutil.copytree(run, other)
    trees.put(other / "checkpoints/step-00000009.json", "{}")
    trees.put(other / "metrics.jsonl", "other")

    Mirror(storage, "runs/k").pull(other)

    assert content(other) == content(run)


def test_a_newer_attempt_shuts_the_older_one_out(storage, run, tmp_path) -> None:
    old, new = Mirror(storage, "runs/k", attempt=1), Mirror(storage, "runs/k", attempt=2)
    old.push(run)
    new.push(run)
    (run / "metrics.jsonl").write_text("late")

    with pytest.raises(Overtaken, match="belongs to attempt 2; attempt 1 ends without publishing"):
        old.push(run)

    assert Mirror(storage, "runs/k").read("metrics.jsonl") == b'{"step": 1}\n'
    assert Mirror(storage, "runs/k").newest_attempt() == 2


def test_two_attempts_at_once_end_with_the_newer_one(storage, run) -> None:
    late: list[int] = []

    def push(attempt: int) -> None:
        try:
            Mirror(storage, "runs/k", attempt=attempt).push(run)
        except Overtaken:
            late.append(attempt)

    threads = [threading.Thread(target=push, args=(number,)) for number in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Mirror(storage, "runs/k").newest_attempt() == 4
    assert 4 not in late


def test_a_push_that_is_killed_anywhere_leaves_the_folder_as_it_was(store, run, tmp_path) -> None:
    storage = open_storage(store.url)
    Mirror(storage, "runs/k", attempt=1).push(run)
    before = content(run)
    program = (
        "import sys; from pathlib import Path\n"
        "from orchestrator.storage.sync import Mirror\n"
        "from datasets.storage.open import open_storage\n"
        "Mirror(open_storage(sys.argv[1]), 'runs/k', attempt=2).push(Path(sys.argv[2]))\n"
    )
    for step, stalled in enumerate(
        ("PUT .*metrics.jsonl", "PUT .*step-00000003.pt", "PUT .*folder.json")
    ):
        trees.put(run / "metrics.jsonl", f"{step}")
        trees.put(run / "checkpoints/step-00000003.pt", b"%d" % step * 50_000)
        rule = store.proxy.harm(stalled, "stall")
        process = subprocess.Popen([sys.executable, "-c", program, store.url, str(run)])
        while not rule.hits:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        store.proxy.heal()

        Mirror(storage, "runs/k").pull(tmp_path / "other")
        assert content(tmp_path / "other") == before

    owner = Mirror(storage, "runs/k", attempt=2)
    assert owner.remove_leftovers() >= 3
    owner.push(run)
    Mirror(storage, "runs/k").pull(tmp_path / "other")
    assert content(tmp_path / "other") == content(run)
    assert owner.remove_leftovers() == 0


def test_a_push_through_harm_arrives(store, run, tmp_path) -> None:
    storage = open_storage(store.url, patience=30.0, stall=1.0)
    for pattern in ("PUT .*step-00000001.pt", "GET .*config.json"):
        store.proxy.harm(pattern, "lose_answer", times=1)
        store.proxy.harm(pattern, "status", times=1)

    Mirror(storage, "runs/k", attempt=1).push(run)
    Mirror(storage, "runs/k").pull(tmp_path / "other")

    assert content(tmp_path / "other") == content(run)
    assert all(rule.hits == 1 for rule in store.proxy.rules)


def test_a_manifest_of_another_version_is_refused(storage, tmp_path) -> None:
    storage.write("runs/k/folder.json", json.dumps({"format": "x"}).encode())

    with pytest.raises(ValueError, match="is of format 'x', not of this version's"):
        Mirror(storage, "runs/k").pull(tmp_path / "other")
