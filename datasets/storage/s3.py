"""Object storage in an S3 bucket: requests with retries, checksums, and conditional writes."""

import asyncio
import base64
import hashlib
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import s3fs  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError

from datasets.errors import Unreachable
from datasets.files import atomic_path, file_sha256
from datasets.storage.base import WAIT_VARIABLE, Entry, Held
from datasets.storage.ranges import Ranges, presigned

Result = TypeVar("Result")
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 8.0  # seconds
_ENVIRONMENT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_ACCESS_KEY_ID")
_PASSING = (
    BotoConnectionError,
    HTTPClientError,
    FSTimeoutError,
    aiohttp.ClientError,
    TimeoutError,
    asyncio.IncompleteReadError,
    ConnectionError,
)
# In the codes of all stores: too many requests, or one that arrived late or damaged.
_PASSING_CODE = re.compile("SlowDown|Throttl|TooMany|LimitExceeded|RequestTimeout$|BadDigest")
# Credentials that have run out. An answer to HEAD has no body, so only its status says so.
_EXPIRED_CODE = re.compile("Expired|TokenRefresh|^400$")
# The same by the names of botocore's errors, which found none to send.
_EXPIRED_ERROR = re.compile("CredentialRetrieval|TokenRetrieval|TokenLoad|SSOToken|LoginRefresh")
_REFUSED_CODE = re.compile("InvalidToken|InvalidAccessKey|SignatureDoesNotMatch|InvalidSecurity")
_SKEW_CODE = "RequestTimeTooSkewed"
_REACHED: set[str] = set()  # buckets that have answered this process


class Damaged(Exception):
    """The bytes received do not match their checksum; the request is repeated."""


@dataclass(frozen=True)
class Answer:
    """Of a request: what the server said about the object, and its bytes where it sent some."""

    head: dict[str, Any]
    body: bytes = b""


@dataclass(frozen=True)
class Calls:
    """Requests with patience.

    Attributes:
        bucket: name.
        patience: seconds of failures until we give up.
        stall: seconds of silence until a request counts as failed.
    """

    bucket: str
    patience: float
    stall: float

    def ask(self, method: str, **arguments: Any) -> Answer:
        """One request without a body in its answer."""
        return self.patiently(
            lambda: Answer(
                _connection(self.stall).call_s3(method, Bucket=self.bucket, **arguments)
            ),
            f"{method} {arguments.get('Key', '')}".strip(),
        )

    def get(self, check: Callable[[Answer], None], **arguments: Any) -> Answer:
        """An object or a range of it; `check` may raise Damaged."""

        def once() -> Answer:
            files = _connection(self.stall)
            answer: Answer = sync(files.loop, _get, files, self.bucket, arguments)
            check(answer)
            return answer

        return self.patiently(once, f"get_object {arguments['Key']}")

    def get_range(self, key: str, start: int, size: int) -> memoryview | None:
        """A range of an object by the short way; None where it fails, so that `get` says why."""
        return _ranges(os.getpid(), _surroundings(), self).read(key, start, size)

    def signed(self, key: str) -> str:
        """A URL by which an object can be read for `URL_SECONDS`."""

        def once() -> str:
            files = _connection(self.stall)
            url: str = sync(files.loop, presigned, files, self.bucket, key)
            return url

        return self.patiently(once, f"get_object {key}")

    def patiently(self, call: Callable[[], Result], what: str) -> Result:
        """The result of a call, which is repeated while it fails with a temporary error.

        Credentials that have run out, and a clock that is off, are waited for where the store has
        answered before: a run that has worked for days is not to end because of them. A command
        that meets them first ends at once.

        Raises:
            Unreachable: it failed for longer than the patience.
            PermissionError: the server refuses us, or there are no credentials.
            ClientError: anything else that the server said; callers know which they expect.
        """
        end = time.monotonic() + self.patience
        for wait in _waits():
            try:
                result = call()
            except Exception as error:  # noqa: BLE001  # sorted out, then raised again
                cause = _cause(error)
                wanted = _by_user(cause)
                if not wanted and not _passes(cause):
                    raise self._worded(cause, what) from None
                is_waiting = self.bucket in _REACHED or WAIT_VARIABLE in os.environ
                if (wanted and not is_waiting) or time.monotonic() + wait > end:
                    raise self._unreachable(cause, what, wanted) from None
                if wanted:
                    _connected.cache_clear()  # a new connection reads the credentials anew
                time.sleep(wait)
            else:
                _REACHED.add(self.bucket)
                return result
        raise AssertionError("the waits have no end")

    def _unreachable(self, cause: BaseException, what: str, wanted: str) -> Unreachable:
        if wanted:
            return Unreachable(
                f"The object store ({_endpoint()}, bucket {self.bucket}) refuses {what} "
                f"({_reason(cause)}): {wanted}, then run the same command again; what is done "
                "stays done."
            )
        return Unreachable(
            f"The object store ({_endpoint()}, bucket {self.bucket}) failed for "
            f"{self.patience:.0f} s ({what}: {_reason(cause)}). Check that it is up and that "
            "AWS_ENDPOINT_URL names it, then run the same command again; what is done stays done."
        )

    def _worded(self, cause: BaseException, what: str) -> BaseException:
        status = status_of(cause)
        if isinstance(cause, NoCredentialsError | PartialCredentialsError | ProfileNotFound):
            return PermissionError(
                f"There are no credentials for s3://{self.bucket} ({_reason(cause)}). Set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
            )
        if status in (401, 403) or _REFUSED_CODE.search(_code(cause)):
            return PermissionError(
                f"The object store ({_endpoint()}) refuses {what} in bucket {self.bucket} "
                f"({_reason(cause)}). Check the credentials and the bucket's policy."
            )
        if _code(cause) == "NoSuchBucket":
            return FileNotFoundError(
                f"The bucket {self.bucket} does not exist at {_endpoint()}. Create it, or check "
                "root and AWS_ENDPOINT_URL."
            )
        return cause


def status_of(error: BaseException) -> int:
    """HTTP status of a server's error; 0 when the error is not an answer of the server."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


async def _get(files: s3fs.S3FileSystem, bucket: str, arguments: dict[str, Any]) -> Answer:
    head = await files._call_s3("get_object", Bucket=bucket, **arguments)
    body = head.pop("Body")
    try:
        return Answer(head, await body.read())
    finally:
        body.close()


@lru_cache(maxsize=8)
def _ranges(pid: int, surroundings: tuple[str, ...], calls: Calls) -> Ranges:
    del pid, surroundings  # as in `_connected`
    return Ranges(calls.signed, calls.stall)


def _surroundings() -> tuple[str, ...]:
    return tuple(os.environ.get(name, "") for name in _ENVIRONMENT)


def _connection(stall: float) -> s3fs.S3FileSystem:
    """The connection of this process; after a fork, and for another endpoint, a new one."""
    return _connected(os.getpid(), _surroundings(), stall)


@lru_cache(maxsize=8)
def _connected(pid: int, surroundings: tuple[str, ...], stall: float) -> s3fs.S3FileSystem:
    del pid, surroundings  # only to tell connections apart
    files = s3fs.S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={
            "connect_timeout": min(stall, 10.0),
            "read_timeout": stall,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": 32,
            # Every PUT has an MD5 already. By default botocore adds a CRC, over TLS behind the body
            # and without a Content-Length, which Ceph and other stores answer with 411.
            "request_checksum_calculation": "when_required",
        },
    )
    files.retries = 1
    files.loop.set_exception_handler(_said)
    return files


def _said(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Whatever asyncio has to say, but for requests that failed: these are repeated or worded."""
    if not isinstance(context.get("exception"), _PASSING):
        loop.default_exception_handler(context)


def _waits() -> Iterator[float]:
    """Seconds to wait before each repetition: doubling, and random so that clients spread out."""
    wait = _FIRST_WAIT
    while True:
        yield wait * (0.5 + os.urandom(1)[0] / 255)
        wait = min(2 * wait, _LONGEST_WAIT)


def _cause(error: BaseException) -> BaseException:
    """What botocore said, below what s3fs made of it."""
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, ClientError):
        cause = cause.__cause__
    return cause if isinstance(cause, ClientError | BotoCoreError) else error


def _code(cause: BaseException) -> str:
    """The code of a server's error; empty when the error is not an answer of the server."""
    return str(cause.response["Error"].get("Code", "")) if isinstance(cause, ClientError) else ""


def _passes(cause: BaseException) -> bool:
    if isinstance(cause, ClientError):
        by_status = status_of(cause) >= 500 or status_of(cause) in (409, 429)
        return by_status or bool(_PASSING_CODE.search(_code(cause)))
    return isinstance(cause, (*_PASSING, Damaged))


def _by_user(cause: BaseException) -> str:
    """What the user must mend before the same request can succeed; empty where that is nothing."""
    if _EXPIRED_CODE.search(_code(cause)) or _EXPIRED_ERROR.search(type(cause).__name__):
        return "its credentials have run out. Renew them (aws sso login, or new AWS_* variables)"
    if _code(cause) == _SKEW_CODE:
        return "this machine's clock is off. Set it (timedatectl set-ntp true)"
    return ""


def _reason(cause: BaseException) -> str:
    """An error in few words; never its request, which carries a signature."""
    if isinstance(cause, ClientError):
        return f"{status_of(cause)} {cause.response['Error'].get('Code', '')}".strip()
    return type(cause).__name__ if not isinstance(cause, Damaged) else str(cause)


def _endpoint() -> str:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    url = next((os.environ[name] for name in names if os.environ.get(name)), "")
    scheme, _, host = url.rpartition("://")
    host = host.rpartition("@")[2]  # nobody's password goes into a text
    return f"{scheme}://{host}" if host else "the endpoint of the AWS profile"


_PART = 16 * 2**20  # bytes of a request of a large upload or download
_THREADS = 4


@dataclass(frozen=True)
class Bucket:
    """A `Storage` in a bucket.

    Attributes:
        calls: requests to the bucket.
        prefix: of all names; empty, or ends with a slash.
    """

    calls: Calls
    prefix: str

    @classmethod
    def at(cls, root: str, *, patience: float, stall: float) -> "Bucket":
        """The bucket of s3://bucket/prefix.

        Raises:
            ValueError: another kind of URL, or credentials in it.
        """
        scheme, _, path = root.partition("://")
        name, _, prefix = path.partition("/")
        if "@" in name:
            raise ValueError(
                "The root has credentials in its URL, which would end up in logs and results. Give "
                "s3://bucket/prefix and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        if scheme != "s3" or not name:
            raise ValueError(f"root={root} is no place for data; give DIR or s3://bucket/prefix.")
        prefix = prefix.strip("/")
        return cls(Calls(name, patience, stall), f"{prefix}/" if prefix else "")

    @property
    def url(self) -> str:
        """The root."""
        return f"s3://{self.calls.bucket}/{self.prefix}".rstrip("/")

    def read(self, name: str, *, start: int = 0, size: int | None = None) -> bytes:
        """See `Storage.read`."""
        if size is not None:
            return bytes(self.view(name, start, size))
        return self._get(name, Range=f"bytes={start}-").body if start else self._get(name).body

    def view(self, name: str, start: int, size: int) -> memoryview:
        """See `Storage.view`."""
        data = self.calls.get_range(self.prefix + name, start, size) if size else memoryview(b"")
        if data is None:
            data = memoryview(self._get(name, Range=f"bytes={start}-{start + size - 1}").body)
        return data

    def hold(self, name: str) -> Held:
        """See `Storage.hold`."""
        answer = self._get(name)
        now = parsedate_to_datetime(answer.head["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now - answer.head["LastModified"]).total_seconds()
        return Held(answer.body, answer.head["ETag"].strip('"'), age)

    def write(self, name: str, content: bytes) -> None:
        """See `Storage.write`."""
        self._put(name, content)

    def create(self, name: str, content: bytes) -> bool:
        """See `Storage.create`."""
        return self._put(name, content, IfNoneMatch="*")

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """See `Storage.replace`."""
        # Without quotes: radosgw 16 compares the text as it stands, and Amazon takes both.
        return self._put(name, content, IfMatch=tag)

    def entries(self, prefix: str = "") -> list[Entry]:
        """See `Storage.entries`."""
        entries: list[Entry] = []
        more: dict[str, str] = {}
        while True:
            head = self.calls.ask("list_objects_v2", Prefix=self.prefix + prefix, **more).head
            for item in head.get("Contents", ()):
                name = item["Key"].removeprefix(self.prefix)
                entries.append(Entry(name, item["Size"]))
            if not head.get("IsTruncated"):
                return sorted(entries, key=lambda entry: entry.name)
            more = {"ContinuationToken": head["NextContinuationToken"]}

    def remove(self, names: Iterable[str]) -> None:
        """See `Storage.remove`."""
        for name in names:
            self.calls.ask("delete_object", Key=self.prefix + name)

    def copy(self, name: str, target: str) -> None:
        """See `Storage.copy`."""
        source = {"Bucket": self.calls.bucket, "Key": self.prefix + name}
        try:
            self.calls.ask("copy_object", Key=self.prefix + target, CopySource=source)
        except ClientError as error:
            raise self._missing(name, error) from None

    def upload(self, path: Path, name: str) -> None:
        """See `Storage.upload`."""
        size = path.stat().st_size
        if size <= 2 * _PART:
            self._put(name, path.read_bytes())
            return
        digest = file_sha256(path)
        key = self.prefix + name
        started = self.calls.ask("create_multipart_upload", Key=key, Metadata={"sha256": digest})
        upload = {"Key": key, "UploadId": started.head["UploadId"]}
        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                numbers = range(1, math.ceil(size / _PART) + 1)
                parts = list(
                    pool.map(lambda number: self._send_part(path, number, upload), numbers)
                )
            self._complete(upload, parts, digest)
        except BaseException:
            with suppress(Exception):  # the first error says more
                self.calls.ask("abort_multipart_upload", **upload)
            raise

    def download(self, name: str, path: Path) -> None:
        """See `Storage.download`."""
        head = self._head(name)
        size, tag = head["ContentLength"], head["ETag"].strip('"')
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with atomic_path(path) as part:
            with part.open("wb") as file:
                for start in range(0, size, _PART):
                    stop = min(start + _PART, size) - 1
                    body = self._get(name, Range=f"bytes={start}-{stop}", IfMatch=tag).body
                    digest.update(body)
                    file.write(body)
            if head["Metadata"].get("sha256", digest.hexdigest()) != digest.hexdigest():
                raise OSError(f"{self.url}/{name} arrived damaged; bring it again.")

    def _get(self, name: str, **condition: str) -> Answer:
        def check(answer: Answer) -> None:
            if len(answer.body) != answer.head["ContentLength"]:
                raise Damaged(f"{len(answer.body)} bytes of {answer.head['ContentLength']} arrived")
            expected = answer.head["Metadata"].get("sha256")
            is_whole = "Range" not in condition and expected
            if is_whole and hashlib.sha256(answer.body).hexdigest() != expected:
                raise Damaged("the bytes that arrived have another sha256")

        try:
            return self.calls.get(check, Key=self.prefix + name, **condition)
        except ClientError as error:
            raise self._missing(name, error) from None

    def _head(self, name: str) -> dict[str, Any]:
        try:
            return self.calls.ask("head_object", Key=self.prefix + name).head
        except ClientError as error:
            raise self._missing(name, error) from None

    def _missing(self, name: str, error: Exception) -> Exception:
        if status_of(error) == 404:
            return FileNotFoundError(2, "No such object", f"{self.url}/{name}")
        return error

    def _put(self, name: str, content: bytes, **condition: str) -> bool:
        """One PUT; False when its condition does not hold."""
        nonce = uuid.uuid4().hex
        digest = hashlib.sha256(content).hexdigest()
        try:
            self.calls.ask(
                "put_object",
                Key=self.prefix + name,
                Body=content,
                ContentMD5=base64.b64encode(hashlib.md5(content).digest()).decode(),
                Metadata={"sha256": digest, "nonce": nonce},
                **condition,
            )
        except ClientError as error:
            if not condition or status_of(error) not in (404, 412):
                raise
            # An answer that was lost makes us meet our own object when we ask again.
            with suppress(FileNotFoundError):
                return bool(self._head(name)["Metadata"].get("nonce") == nonce)
            return False
        return True

    def _send_part(self, path: Path, number: int, upload: dict[str, str]) -> dict[str, Any]:
        with path.open("rb") as file:
            file.seek((number - 1) * _PART)
            body = file.read(_PART)
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        answer = self.calls.ask(
            "upload_part", PartNumber=number, Body=body, ContentMD5=md5, **upload
        )
        return {"PartNumber": number, "ETag": answer.head["ETag"]}

    def _complete(self, upload: dict[str, str], parts: list[dict[str, Any]], digest: str) -> None:
        """End a large upload; an answer that was lost shows as an upload that is unknown."""
        try:
            self.calls.ask("complete_multipart_upload", MultipartUpload={"Parts": parts}, **upload)
        except ClientError:
            head = self._head(upload["Key"].removeprefix(self.prefix))
            if head["Metadata"].get("sha256") != digest:
                raise
