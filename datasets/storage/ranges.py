"""Ranges of objects in a bucket, over kept connections and by URLs that are signed once.

An S3 client signs, sends and parses every request anew, which takes about 2 ms of CPU: as much as
decoding an image. The signature of a presigned URL covers any range of its object, so here a
request is one line of text and its answer the bytes.
"""

import http.client
import math
import os
import ssl
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import s3fs  # type: ignore[import-untyped]

URL_SECONDS = 900  # a signature holds so long
_RENEWED_AFTER = 600.0  # seconds
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
        self._idle: deque[http.client.HTTPConnection] = deque()
        self._closed_until = 0.0
        self._context: ssl.SSLContext | None = None  # one for all connections: it reads many files

    def __del__(self) -> None:
        for connection in self._idle:
            connection.close()

    def read(self, key: str, start: int, size: int) -> bytes | None:
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

    def _asked(self, url: str, wanted: str, size: int) -> bytes | None:
        """The bytes that one request brings, over a connection that is kept or a new one."""
        scheme, host, path, query, _ = urlsplit(url)
        while scheme:
            kept = self._idle.pop() if self._idle else None
            connection = kept or self._opened(scheme, host)
            try:
                connection.request("GET", f"{path}?{query}", headers={"Range": wanted})
                answer = connection.getresponse()
                data = answer.read(size) if answer.status == HTTPStatus.PARTIAL_CONTENT else b""
                is_whole = len(data) == size and not answer.read(1)  # the last read ends the answer
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if kept and not isinstance(error, TimeoutError):
                    continue  # the server has closed a connection that was idle
                return None
            if is_whole and not answer.will_close:
                self._idle.append(connection)
            else:
                connection.close()
            return data if is_whole else None
        return None

    def _opened(self, scheme: str, host: str) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(host, timeout=self._stall)
        if self._context is None:
            self._context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
        return http.client.HTTPSConnection(host, timeout=self._stall, context=self._context)


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
