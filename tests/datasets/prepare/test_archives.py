"""Downloads from a real HTTP server on loopback that cuts, refuses ranges, or sends other bytes."""

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from datasets.__main__ import main
from datasets.errors import DataError, Unreachable
from datasets.known.interface import Archive
from datasets.known.pascal_voc import PASCAL_VOC
from datasets.prepare.archives import download_archive
from datasets.storage import download as module

CONTENT = bytes(range(251)) * 20_000  # 5 MB
ARCHIVE = Archive("voc", "a.tar", "unused", hashlib.md5(CONTENT).hexdigest(), "a test")


@dataclass
class Server:
    """What it does next, and what it was asked."""

    url: str
    cuts: list[int] = field(default_factory=list)  # bytes after which an answer ends, in turn
    knows_ranges: bool = True
    status: int = 200
    ranges: list[str] = field(default_factory=list)
    content: bytes = CONTENT


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "_FIRST_WAIT_SECONDS", 0.01)

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            del arguments

        def do_GET(self) -> None:
            answer(self, state)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        state = Server(f"http://127.0.0.1:{http_server.server_port}/a.tar")
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        yield state
        http_server.shutdown()
        thread.join()


def answer(handler: http.server.BaseHTTPRequestHandler, state: Server) -> None:
    asked = handler.headers.get("Range", "")
    state.ranges.append(asked)
    start = int(re.findall(r"\d+", asked)[0]) if asked and state.knows_ranges else 0
    if state.status != 200 or (start and start >= len(state.content)):
        handler.send_response(416 if start else state.status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    body = state.content[start:]
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)


def fetch(folder: Path, server: Server) -> Path:
    return download_archive(ARCHIVE, folder, mirror=server.url, say=lambda line: None)


def test_a_file_arrives_whole_under_its_name(tmp_path, server) -> None:
    assert fetch(tmp_path / "to", server).read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["a.tar"]


def test_a_download_that_is_cut_again_and_again_goes_on_where_it_was(tmp_path, server) -> None:
    server.cuts = [3_000_000, 1_500_000, 100_000]

    assert fetch(tmp_path, server).read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=3000000-", "bytes=4500000-", "bytes=4600000-"]


def test_a_server_without_ranges_begins_anew(tmp_path, server) -> None:
    server.cuts, server.knows_ranges = [3_000_000], False

    assert fetch(tmp_path, server).read_bytes() == CONTENT


def test_a_part_of_an_earlier_call_is_gone_on_with(tmp_path, server) -> None:
    (tmp_path / ".a.tar.part").write_bytes(CONTENT[:4_000_000])

    assert fetch(tmp_path, server).read_bytes() == CONTENT
    assert server.ranges == ["bytes=4000000-"]


def test_a_part_that_was_whole_is_only_proved(tmp_path, server) -> None:
    (tmp_path / ".a.tar.part").write_bytes(CONTENT)

    assert fetch(tmp_path, server).read_bytes() == CONTENT


def test_what_is_there_is_not_downloaded_again(tmp_path, server) -> None:
    fetch(tmp_path, server)
    server.ranges.clear()

    fetch(tmp_path, server)
    assert server.ranges == []


def test_other_bytes_are_refused_and_removed(tmp_path, server) -> None:
    server.content = b"<html>" + CONTENT

    with pytest.raises(DataError, match=r"is not a\.tar .*Give another copy with voc=URL"):
        fetch(tmp_path, server)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_that_name_that_is_not_the_archive_is_left_alone(tmp_path, server) -> None:
    (tmp_path / "a.tar").write_bytes(b"mine")

    with pytest.raises(DataError, match=r"is not the published archive .*Remove it"):
        fetch(tmp_path, server)
    assert (tmp_path / "a.tar").read_bytes() == b"mine"


@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_server_that_has_it_not_is_named_with_the_way_around(tmp_path, server, status) -> None:
    server.status = status

    with pytest.raises(Unreachable, match=r"put a\.tar \(md5 .*by hand") as error:
        fetch(tmp_path, server)
    assert server.url in str(error.value)
    assert len(server.ranges) == (1 if status < 500 else 6)


def test_no_server_has_its_own_exit_code(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_SECONDS", 0.001)

    assert main(["download", "voc", f"to={tmp_path}", "voc=http://127.0.0.1:9/x"]) == 20
    assert "Another copy: voc=URL" in capsys.readouterr().err


def test_cityscapes_says_what_to_get_where(capsys) -> None:
    assert main(["download", "cityscapes", "root=/data/city"]) == 2

    error = capsys.readouterr().err
    assert "https://www.cityscapes-dataset.com/register/" in error
    assert "leftImg8bit_trainvaltest.zip" in error
    assert "root=/data/city" in error


def test_the_published_archives_are_those_of_the_papers() -> None:
    voc, sbd = PASCAL_VOC.archives

    assert (voc.file, voc.md5) == (
        "VOCtrainval_11-May-2012.tar",
        "6cd6e144f989b92b3379bac3b3de84fd",
    )
    assert (sbd.file, sbd.md5) == ("benchmark.tgz", "82b4d87ceb2ed10f6038a1cba92111cb")
