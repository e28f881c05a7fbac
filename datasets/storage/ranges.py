"""Ranges of objects in a bucket, over kept connections and by URLs that are signed once.

An S3 client signs, sends and parses every request anew, which takes about 2 ms of CPU: as much as
decoding an image. The signature of a presigned URL covers any range of its object, so here a
request is one line of text and its answer the bytes.
"""

import math
import os
import socket
import ssl
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import s3fs  # type: ignore[import-untyped]

URL_SECONDS = 900  # a signature holds so long
_RENEWED_AFTER = 600.0  # seconds
_HEAD = 8192  # bytes before a body, at most
_PAUSE = 60.0  # seconds without a try after one that failed


class Ranges:
    """Ranges by the short way, which never says why it fails: the ordinary client does.

    Several threads may use it; after a fork a process needs its own.
    """

    def __init__(self, sign: Callable[[str], str], stall: float) -> None:
        """Begin without a connection.

        Args:
            sign: presigned URL of an object, for `URL_SECONDS`.
            stall: seconds of silence until a request counts as failed.
        """
        self._sign, self._stall = sign, stall
        self._urls: dict[str, tuple[str, float]] = {}
        self._idle: deque[socket.socket] = deque()
        self._closed_until = 0.0
        self._context: ssl.SSLContext | None = None  # one for all connections: it reads many files

    def __del__(self) -> None:
        for connection in self._idle:
            connection.close()

    def read(self, key: str, start: int, size: int) -> memoryview | None:
        """The bytes of a range.

        Returns:
            None where the server gave anything else than these bytes, or no answer; then the short
            way is left out for a minute.
        """
        if time.monotonic() < self._closed_until:
            return None
        data = self._asked(self._url(key), f"bytes={start}-{start + size - 1}", size)
        if data is None:
            self._urls.pop(key, None)
            self._closed_until = time.monotonic() + _PAUSE
        return data

    def _url(self, key: str) -> str:
        """The signed URL of an object; empty where a proxy lies before it."""
        url, signed = self._urls.get(key, ("", -math.inf))
        if time.monotonic() - signed > _RENEWED_AFTER:
            url = self._sign(key)
            scheme, host, *_ = urlsplit(url)
            if urllib.request.getproxies().get(scheme) and not urllib.request.proxy_bypass(host):
                url = ""
            self._urls[key] = url, time.monotonic()
        return url

    def _asked(self, url: str, wanted: str, size: int) -> memoryview | None:
        """The bytes that one request brings, over a connection that is kept or a new one."""
        scheme, host, path, query, _ = urlsplit(url)
        request = f"GET {path}?{query} HTTP/1.1\r\nHost: {host}\r\nRange: {wanted}\r\n\r\n"
        while scheme:
            kept = self._kept()
            connection, stays_open = kept, False
            try:
                connection = kept or self._opened(url)
                connection.sendall(request.encode())
                data, stays_open = _received(connection, size)
                return data
            except OSError as error:
                if kept is None or isinstance(error, TimeoutError):
                    return None
                # else the server has closed a connection that was idle
            finally:
                if connection and stays_open:
                    self._idle.append(connection)
                elif connection:
                    connection.close()
        return None

    def _kept(self) -> socket.socket | None:
        with suppress(IndexError):  # asked first, another thread could take the last one meanwhile
            return self._idle.pop()
        return None

    def _opened(self, url: str) -> socket.socket:
        at = urlsplit(url)
        is_plain = at.scheme == "http"
        if not is_plain and self._context is None:
            self._context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
        place = at.hostname, at.port or (80 if is_plain else 443)
        connection = socket.create_connection(place, timeout=self._stall)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is None:
            return connection
        try:
            return self._context.wrap_socket(connection, server_hostname=at.hostname)
        except OSError:
            connection.close()
            raise


def _received(connection: socket.socket, size: int) -> tuple[memoryview | None, bool]:
    """The body of an answer that is a range of such a size, and whether another may follow.

    By hand, since `http.client` takes twice the CPU of the transfer for 750 kB. It knows this one
    form of an answer, and gives None for any other.
    """
    buffer = memoryview(bytearray(_HEAD + size))
    received, end = 0, -1
    while end < 0:
        if received >= _HEAD:
            return None, False
        received += _more(connection, buffer[received:])
        end = bytes(buffer[:_HEAD]).find(b"\r\n\r\n")
    start = end + 4
    status, *lines = bytes(buffer[:end]).lower().split(b"\r\n")
    fields = dict(line.replace(b" ", b"").split(b":", 1) for line in lines if b":" in line)
    is_wanted = status.startswith(b"http/1.1 206") and fields.get(b"content-length") == b"%d" % size
    if not is_wanted or b"transfer-encoding" in fields:
        return None, False
    while received < start + size:
        received += _more(connection, buffer[received : start + size])
    stays_open = received == start + size and fields.get(b"connection") != b"close"
    return buffer[start : start + size], stays_open


def _more(connection: socket.socket, room: memoryview) -> int:
    """Number of bytes that arrived.

    Raises:
        ConnectionResetError: none will.
    """
    count = connection.recv_into(room)
    if not count:
        raise ConnectionResetError("the server closed the connection within an answer")
    return count


async def presigned(files: s3fs.S3FileSystem, bucket: str, key: str) -> str:
    """A URL by which an object can be read for `URL_SECONDS`, without a request."""
    await files.set_session()
    client = files.s3
    # botocore presigns by version 2 unless told otherwise, which many servers no longer know.
    client.meta.events.register_first("choose-signer.s3.GetObject", _version_4, unique_id="ranges")
    wanted = {"Bucket": bucket, "Key": key}
    url: str = await client.generate_presigned_url("get_object", wanted, ExpiresIn=URL_SECONDS)
    return url


def _version_4(signature_version: Any, **_: Any) -> str | None:
    """The version of a signature within a URL; None for those of all other requests."""
    return "s3v4-query" if str(signature_version).endswith("-query") else None
