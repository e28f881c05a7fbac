"""A lock in a bucket has one owner, who learns it when it is taken away."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from datasets.errors import Unreachable
from orchestrator.storage.file_lock import FRESH_VARIABLE, Busy, LockOwner
from orchestrator.storage.s3_lock import IDLE_BYTES, LockLost, LockRecord, read_lock, s3_lock
from orchestrator.storage.s3_storage import storage_of
from tests.support.lab import CHECKOUT, wait_until
from tests.support.s3.session import Store

NAME = "runs/k/lock"
HOLD = """
import sys, time
from orchestrator.storage.s3_lock import s3_lock
with s3_lock(sys.argv[1], "runs/k/lock", "attempt 7"):
    print("held", flush=True)
    time.sleep(60)
"""
ELSEWHERE = LockRecord(
    4, LockOwner("elsewhere", 1, "attempt 4", "noon"), "another machine", "1", "token"
)


@pytest.fixture
def quick() -> Iterator[None]:
    """Locks of hosts that fell silent are given up after three seconds."""
    os.environ[FRESH_VARIABLE] = "3"
    yield
    del os.environ[FRESH_VARIABLE]


def test_another_process_is_named_and_a_killed_one_leaves_the_lock_free_at_once(store) -> None:
    call = [sys.executable, "-c", HOLD, store.url]
    process = subprocess.Popen(call, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"

    with (
        pytest.raises(Busy, match=f"attempt 7, process {process.pid} on "),
        s3_lock(store.url, NAME, "mine"),
    ):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    assert read_lock(storage_of(store.url), NAME)[1] is None
    with s3_lock(store.url, NAME, "mine"):
        owner = read_lock(storage_of(store.url), NAME)[1]
        assert owner is not None
        assert owner.pid == os.getpid()


def test_another_host_owns_it_while_its_heartbeat_is_fresh(store, quick) -> None:
    storage = storage_of(store.url)
    storage.write(NAME, ELSEWHERE.text())
    with pytest.raises(Busy, match="elsewhere"), s3_lock(store.url, NAME, "mine"):
        pass

    with s3_lock(store.url, NAME, "mine", wait_seconds=15.0) as hold:
        assert hold.attempt == 4
        time.sleep(4.0)  # our own heartbeat keeps it
        owner = read_lock(storage, NAME)[1]
        assert owner is not None
        assert owner.what == "mine"


def test_whose_lock_was_taken_can_neither_number_an_attempt_nor_release_it(store, quick) -> None:
    storage = storage_of(store.url)

    with s3_lock(store.url, NAME, "mine") as hold:
        storage.write(NAME, ELSEWHERE.text())
        with pytest.raises(LockLost, match="taken over by attempt 4, process 1 on elsewhere"):
            hold.describe("attempt 5", attempt=5)
        assert hold.is_lost

    assert storage.read(NAME) == ELSEWHERE.text()


def test_a_heartbeat_finds_out_that_the_lock_was_taken(store, quick) -> None:

    with s3_lock(store.url, NAME, "mine") as hold:
        storage_of(store.url).write(NAME, ELSEWHERE.text())

        wait_until(lambda: hold.is_lost, seconds=10.0)


def test_a_lock_outlives_answers_that_never_come(store: Store, quick) -> None:
    with s3_lock(store.url, NAME, "mine") as hold:
        store.proxy.harm(f"PUT .*{NAME}", "lose_answer", times=2)
        store.proxy.harm(f"(GET|HEAD) .*{NAME}", "stall", times=1)
        wait_until(lambda: store.proxy.count(f"PUT .*{NAME}") > 4, seconds=30.0)
        store.proxy.heal()

        hold.heartbeat()
        assert not hold.is_lost


def test_a_lock_that_could_not_be_released_is_taken_again_by_its_process(store, quick) -> None:
    with s3_lock(store.url, NAME, "mine") as hold:
        hold.describe("attempt 3", attempt=3)
        store.proxy.harm(f"PUT .*{NAME}", "status")
    store.proxy.heal()

    with s3_lock(store.url, NAME, "again") as hold:
        assert hold.attempt == 3


def test_of_many_processes_one_owns_it_at_a_time(store) -> None:
    inside: list[int] = []

    def own() -> None:
        with s3_lock(store.url, NAME, "one of many", wait_seconds=60.0):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.05)
            inside.pop()
            done.append(1)

    done: list[int] = []
    threads = [threading.Thread(target=own) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(done) == 6


def test_a_lock_of_nobody_is_short_and_one_of_somebody_is_not() -> None:
    nobody, somebody = LockRecord(attempt=99999), LockRecord(owner=LockOwner("h", 1, "", ""))

    assert len(nobody.text()) <= IDLE_BYTES < len(somebody.text())
    assert LockRecord.of(None) == LockRecord()


def test_a_store_that_does_not_answer_gives_no_lock(store: Store) -> None:
    store.proxy.harm("GET .*", "status")
    patient = storage_of(store.url, patience=0.5)

    with pytest.raises(Unreachable, match="AWS_ENDPOINT_URL"):
        read_lock(patient, NAME)
