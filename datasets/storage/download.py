"""HTTP download that retries when the server fails and resumes where it was cut."""

import http.client
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

from datasets.errors import Unreachable
from datasets.progress import Progress, Say, silent

_BLOCK = 2**20
_TIMEOUT_SECONDS = 30.0
_TRIES = 6  # in a row without a new byte
_NAME_TRIES = 3  # where the server's name is unknown, which seldom passes
_FIRST_WAIT_SECONDS = 0.5


def download(
    address: str, path: Path, *, cure: str, say: Say = silent, tries: int = _TRIES
) -> Message:
    """Download a file to `path`; the part that an earlier call left there is continued.

    Whether the bytes are the wanted ones is for the caller to check.

    Args:
        address: of the file.
        path: where it grows, in a folder that is there.
        cure: last sentence of the error: what to do on a machine without a network.
        say: given lines about the progress.
        tries: how often in a row the server may fail before a new byte has come.

    Returns:
        What the server says about the file: the headers of its last answer.

    Raises:
        Unreachable: the server does not answer, or not with the file.
    """
    failures, wait = 0, _FIRST_WAIT_SECONDS
    while True:
        before = _size(path)
        try:
            is_whole, headers = _continue(address, path, say)
            if is_whole:
                return headers
            reason = "the connection was cut"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error)
            code = getattr(error, "code", 0)
            if 400 <= code < 500 and code not in (408, 429):
                raise _unreachable(address, f"{code} {reason}", cure) from error
            if isinstance(getattr(error, "reason", None), socket.gaierror):
                tries = min(tries, _NAME_TRIES)
        has_grown = _size(path) > before
        failures, wait = (1, _FIRST_WAIT_SECONDS) if has_grown else (failures + 1, 2 * wait)
        if failures >= tries:
            raise _unreachable(address, reason, cure)
        time.sleep(wait)


def _continue(address: str, path: Path, say: Say) -> tuple[bool, Message]:
    """Append what is missing; whether the file is whole now, and the answer's headers."""
    start = _size(path)
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # nothing is left to send, or the part is of another file
            return True, error.headers
        raise
    with answer:
        if start and answer.status != 206:
            start = 0  # this server knows no ranges
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        progress = Progress(
            -(-(total or start) // _BLOCK), f"{address.rpartition('/')[2]} (MiB)", say
        )
        progress.skip(start // _BLOCK)
        with path.open("r+b" if start else "wb") as file:
            file.seek(start)
            for block in _blocks(answer):
                file.write(block)
                progress.step()
            end = file.tell()
        return total is None or end == total, answer.headers


def _blocks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The bytes of an answer, as far as they come."""
    while True:
        try:
            block = answer.read(_BLOCK)
        except http.client.IncompleteRead as error:
            block = error.partial
        if not block:
            return
        yield block


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _unreachable(address: str, reason: str, cure: str) -> Unreachable:
    return Unreachable(f"{address} cannot be had ({reason}). {cure}")
