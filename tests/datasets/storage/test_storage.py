"""One contract, two stores: a folder, and a bucket of a real S3 server with harm done to it."""

import asyncio
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest
from fsspec.asyn import get_loop

from datasets.errors import Unreachable
from datasets.storage.base import Storage
from datasets.storage.open import is_url, open_storage
from datasets.storage.ranges import Ranges
from datasets.storage.s3 import Bucket
from tests.support.s3.ceph import ACCESS, SECRET, surroundings
from tests.support.s3.session import Store


@pytest.fixture(params=["folder", "bucket"])
def storage(request, tmp_path) -> Storage:
    if request.param == "folder":
        return open_storage(str(tmp_path / "root"))
    store = request.getfixturevalue("store")
    return open_storage(store.url)


def impatient(store: Store, patience: float = 20.0, stall: float = 1.0) -> Storage:
    return open_storage(store.url, patience=patience, stall=stall)


def test_a_copy_has_the_same_content_and_the_age_of_an_object_is_known(storage) -> None:
    storage.write("one", b"content")

    storage.copy("one", "deep/two")

    assert storage.read("deep/two") == b"content"
    assert storage.hold("one").content == b"content"
    assert -1.0 <= storage.hold("one").age_seconds < 60.0
    with pytest.raises(FileNotFoundError):
        storage.copy("missing", "three")


def test_a_server_behind_tls_takes_every_kind_of_write(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{store.box.tls_port}")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(store.box.certificate))
    storage, large = impatient(store), tmp_path / "large"
    large.write_bytes(b"x" * (33 * 2**20))  # goes in parts

    storage.write("one", b"content")
    storage.upload(large, "large")

    assert storage.create("lock", b"1")
    assert storage.replace("lock", b"2", storage.hold("lock").tag)
    assert storage.read("one", start=1, size=3) == b"ont"
    assert {entry.name for entry in storage.entries()} == {"one", "large", "lock"}


def test_a_request_that_lost_its_server_prints_no_traceback(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    open_storage(store.url).write("one", b"content")  # connects, on the same loop
    caplog.set_level(logging.ERROR, logger="asyncio")
    lost, other = aiohttp.ClientConnectionResetError("lost"), RuntimeError("other")

    for error in (lost, other):
        asyncio.run_coroutine_threadsafe(_tell_of(error), get_loop()).result()

    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [other]


async def _tell_of(error: Exception) -> None:
    """As a task that nobody waits for does at its end."""
    asyncio.get_running_loop().call_exception_handler({"message": "told", "exception": error})


def test_objects_are_written_read_listed_and_removed(storage) -> None:
    assert storage.entries() == []
    storage.write("b/two", b"22")
    storage.write("b/two", b"new")
    storage.write("a", b"")
    storage.write("bc", bytes(range(256)))

    assert [(entry.name, entry.size) for entry in storage.entries()] == [
        ("a", 0),
        ("b/two", 3),
        ("bc", 256),
    ]
    assert [entry.name for entry in storage.entries("b")] == ["b/two", "bc"]
    assert [entry.name for entry in storage.entries("b/")] == ["b/two"]
    assert storage.read("b/two") == b"new"
    assert storage.read("bc", start=10, size=3) == b"\x0a\x0b\x0c"
    assert storage.read("bc", start=254) == b"\xfe\xff"
    assert storage.read("bc", start=3, size=0) == b""
    storage.remove(["a", "not there"])
    assert [entry.name for entry in storage.entries()] == ["b/two", "bc"]


def test_what_is_not_there_is_a_file_not_found(storage, tmp_path) -> None:
    for ask in (storage.read, storage.hold, lambda name: storage.download(name, tmp_path / "x")):
        with pytest.raises(FileNotFoundError):
            ask("nothing")
    assert not (tmp_path / "x").exists()


def test_an_object_is_created_once(storage) -> None:
    assert storage.create("claim", b"mine")
    assert not storage.create("claim", b"theirs")
    assert storage.read("claim") == b"mine"


def test_of_many_who_create_at_once_one_wins(storage) -> None:
    won: list[int] = []

    def attempt(number: int) -> None:
        if storage.create("claim", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert storage.read("claim") == str(won[0]).encode()


def test_an_object_is_replaced_only_while_it_is_the_one_we_know(storage) -> None:
    storage.write("lease", b"1")
    held = storage.hold("lease")

    assert storage.replace("lease", b"2", held.tag)
    assert not storage.replace("lease", b"3", held.tag)
    assert storage.read("lease") == b"2"
    assert not storage.replace("nothing", b"3", held.tag)


def test_counting_up_by_replace_loses_no_step(storage) -> None:
    storage.write("count", b"0")

    def count_up() -> None:
        done = 0
        while done < 5:
            held = storage.hold("count")
            done += storage.replace("count", str(int(held.content) + 1).encode(), held.tag)

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert storage.read("count") == b"20"


@pytest.mark.parametrize("size", [0, 10, 40 * 2**20 + 7])
def test_files_of_any_size_go_up_and_down(storage, tmp_path, size) -> None:
    source = tmp_path / "source"
    source.write_bytes((b"%08d" * (size // 8 + 1) % tuple(range(size // 8 + 1)))[:size])

    storage.upload(source, "deep/file")
    storage.download("deep/file", tmp_path / "folder/copy")

    assert (tmp_path / "folder/copy").read_bytes() == source.read_bytes()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["copy"]


def test_a_listing_of_more_than_a_page_is_whole(store) -> None:
    storage = open_storage(store.url)
    with surroundings(store.box.port), ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: storage.write(f"many/{number:04d}", b""), range(1005)))

    assert len(storage.entries("many/")) == 1005
    assert store.proxy.count("GET .*list-type=2") == 2


@pytest.mark.parametrize("code", [500, 503, 504])
def test_errors_of_the_server_are_asked_again(store, code) -> None:
    storage = impatient(store)
    for method in ("PUT", "GET"):
        store.proxy.harm(f"{method} .*key", "status", times=2, code=code)

    storage.write("key", b"content")

    assert storage.read("key") == b"content"
    assert store.proxy.count("PUT .*key") == 3
    assert store.proxy.count("GET .*key") == 3


@pytest.mark.parametrize(
    ("method", "harm", "count"),
    [
        ("PUT", "stall", 0),
        ("PUT", "cut_request", 3000),
        ("PUT", "lose_answer", 0),
        ("GET", "stall", 0),
        ("GET", "lose_answer", 0),
        ("GET", "cut_answer", 3000),
        ("GET", "flip", 0),
    ],
)
def test_a_request_that_came_to_harm_is_asked_again(store, method, harm, count) -> None:
    storage, content = impatient(store), os.urandom(100_000)
    rule = store.proxy.harm(f"{method} .*key", harm, times=1, count=count)

    storage.write("key", content)

    assert storage.read("key") == content
    assert rule.hits == 1


def test_ranges_of_an_object_are_signed_once(store) -> None:
    storage = open_storage(store.url)
    storage.write("key", b"0123456789")

    assert [storage.read("key", start=start, size=3) for start in (2, 5)] == [b"234", b"567"]

    lines = [line for line in store.proxy.lines if line.startswith("GET")]
    assert len(lines) == 2
    assert len(set(lines)) == 1  # with the signature
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in lines[0]


def test_where_signed_urls_are_refused_ranges_come_as_everything_else(store) -> None:
    storage = impatient(store)
    storage.write("key", b"0123456789")
    store.proxy.harm("GET.*X-Amz-Signature", "status", code=503)

    assert [storage.read("key", start=start, size=3) for start in (2, 5)] == [b"234", b"567"]

    assert store.proxy.count("GET.*X-Amz-Signature") == 1  # none for a minute
    assert store.proxy.count("GET") == 3


def test_a_kept_connection_that_was_closed_is_replaced(store) -> None:
    storage = impatient(store)
    storage.write("key", b"0123456789")
    storage.read("key", start=2, size=3)
    store.proxy.harm("GET", "lose_answer", times=1)

    assert storage.read("key", start=5, size=3) == b"567"

    assert store.proxy.count("GET.*X-Amz-Signature") == store.proxy.count("GET") == 3


def test_a_proxy_of_the_environment_is_left_to_the_client(store, monkeypatch) -> None:
    storage = open_storage(store.url)
    storage.write("key", b"0123456789")
    assert isinstance(storage, Bucket)
    direct, behind = (Ranges(storage.calls.signed, 1.0) for _ in range(2))
    assert direct.read("a/prefix/key", 2, 3) == b"234"

    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{store.proxy.port}")
    monkeypatch.delenv("no_proxy", raising=False)

    assert behind.read("a/prefix/key", 2, 3) is None


def test_a_half_sent_object_is_never_seen(store) -> None:
    storage = impatient(store, patience=1.0)
    storage.write("key", b"old" * 1000)
    store.proxy.harm("PUT .*key", "cut_request", count=100)

    with pytest.raises(Unreachable):
        storage.write("key", b"new" * 1000)
    assert storage.read("key") == b"old" * 1000


@pytest.mark.parametrize("call", ["create", "replace"])
def test_a_winner_whose_answer_was_lost_knows_that_it_won(store, call) -> None:
    storage = impatient(store)
    storage.write("lease", b"0")
    tag = storage.hold("lease").tag
    store.proxy.harm("PUT", "lose_answer", times=1)

    won = storage.create("claim", b"1") if call == "create" else storage.replace("lease", b"1", tag)

    assert won
    assert storage.read("claim" if call == "create" else "lease") == b"1"


def test_a_large_upload_survives_harm_to_its_parts(store, tmp_path) -> None:
    source, storage = tmp_path / "source", impatient(store, stall=3.0)
    source.write_bytes(os.urandom(1 << 20) * 34)
    store.proxy.harm("PUT .*partNumber=2", "cut_request", times=1, count=5_000_000)
    store.proxy.harm("PUT .*partNumber=1", "status", times=1)
    store.proxy.harm("POST .*uploadId", "lose_answer", times=1)
    store.proxy.harm("GET .*big", "cut_answer", times=1, count=2_000_000)

    storage.upload(source, "big")
    storage.download("big", tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert all(rule.hits == 1 for rule in store.proxy.rules)


def test_patience_ends_with_words_and_its_own_error(store) -> None:
    storage = impatient(store, patience=1.0)
    store.proxy.harm("GET", "status", code=503)

    with pytest.raises(
        Unreachable, match=r"failed for 1 s \(get_object .*: 503 SlowDown\)"
    ) as error:
        storage.read("key")

    assert "Check that it is up and that AWS_ENDPOINT_URL names it" in str(error.value)


def test_a_server_that_is_gone_is_unreachable_and_waited_for(store) -> None:
    with surroundings(9):
        gone = open_storage(store.url, patience=0.5, stall=1.0)
        with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9, bucket b-"):
            gone.read("key")
    storage = impatient(store, patience=60.0)
    storage.write("key", b"1")
    store.box.kill("rgw")
    writer = threading.Thread(target=storage.write, args=("key", b"2"))
    writer.start()
    time.sleep(0.5)
    assert writer.is_alive()

    store.box.start("rgw")

    writer.join()
    assert storage.read("key") == b"2"


def test_a_writer_that_is_killed_leaves_the_old_object_whole(store, tmp_path) -> None:
    storage = open_storage(store.url)
    storage.write("key", b"old")
    program = (
        "import os, sys\n"
        "from datasets.storage.open import open_storage\n"
        "storage = open_storage(sys.argv[1])\n"
        "content = os.urandom(1 << 20) * 30\n"
        "print('go', flush=True)\n"
        "while True: storage.write('key', content)\n"
    )
    store.proxy.harm("PUT .*key", "stall", times=None)
    process = subprocess.Popen(
        [sys.executable, "-c", program, store.url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    while not store.proxy.count("PUT .*key"):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    assert storage.read("key") in (b"old",)


def test_neither_errors_nor_pickles_hold_the_credentials(store, monkeypatch) -> None:
    texts = [repr(open_storage(store.url)), pickle.dumps(open_storage(store.url)).decode("latin1")]
    store.proxy.harm("GET .*fails", "status")
    with pytest.raises(Unreachable) as unreachable:
        impatient(store, patience=0.3).read("fails")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-" + SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    with pytest.raises(PermissionError, match=r"refuses .*Check the credentials") as refused:
        _fresh(store).write("key", b"")

    for text in (*texts, str(unreachable.value), str(refused.value)):
        assert SECRET not in text
        assert ACCESS not in text


def _fresh(store: Store) -> Storage:
    """Another connection than the one that knows the right secret."""
    return open_storage(store.url, stall=7.5)


def test_no_credentials_is_said_with_the_cure(store, monkeypatch, tmp_path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(PermissionError, match=r"no credentials .*Set AWS_ACCESS_KEY_ID"):
        _fresh(store).read("key")


def test_a_profile_is_taken_as_all_of_amazon_s_tools_do(store, monkeypatch, tmp_path) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.write_text(
        f"[profile box]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n"
        f"endpoint_url = {endpoint}\nregion = us-east-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "box")

    storage = open_storage(store.url)
    storage.write("key", b"1")

    assert storage.read("key") == b"1"


@pytest.mark.parametrize(
    ("root", "text"),
    [
        ("s3://key:secret@bucket/x", "credentials in its URL"),
        ("gs://bucket/x", "is no place for data; give DIR or s3://bucket/prefix"),
        ("s3:///x", "is no place for data"),
    ],
)
def test_other_urls_are_refused_without_repeating_secrets(root, text) -> None:
    with pytest.raises(ValueError, match=text) as error:
        open_storage(root)
    assert "secret@" not in str(error.value)


def test_a_missing_bucket_says_how_to_go_on(store) -> None:
    with pytest.raises(FileNotFoundError, match=r"bucket not-there does not exist .*Create it"):
        open_storage("s3://not-there/x").read("key")


def test_folders_are_told_from_stores() -> None:
    assert [is_url(root) for root in ("a", "/a", "file:///a", "s3://a", "gs://a")] == [
        *(False, False, False),
        *(True, True),
    ]


def test_a_folder_may_be_given_as_a_url(tmp_path) -> None:
    open_storage(f"file://{tmp_path}/x").write("a", b"1")

    assert Path(tmp_path / "x/a").read_bytes() == b"1"


@pytest.mark.parametrize("root", ["s3:/bucket/x", "s3:bucket", "S3:/b", "https:/x", "file:/x"])
def test_a_url_that_lacks_a_slash_is_no_folder(root: str) -> None:
    with pytest.raises(ValueError, match=r"it lacks a slash\. Write .*://"):
        open_storage(root)
    assert not is_url(f"./{root}")
