"""Single requests to an S3 server: asked again while it fails, their errors put in words.

s3fs brings the connection and the credentials; how often and how long to try is ours alone, so its
own repetitions are switched off (left on, both multiply: 25 requests for one).
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
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
_PASSING_CODES = {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "BadDigest"}


class Damaged(Exception):
    """What arrived is not what was sent; asking again helps."""


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

    def patiently(self, call: Callable[[], Result], what: str) -> Result:
        """What a call returns, tried again while it fails in a way that passes.

        Raises:
            Unreachable: it failed for longer than the patience.
            PermissionError: the server refuses us, or there are no credentials.
            ClientError: anything else that the server said; callers know which they expect.
        """
        end = time.monotonic() + self.patience
        for wait in _waits():
            try:
                return call()
            except Exception as error:  # noqa: BLE001  # sorted out, then raised again
                cause = _cause(error)
                if not _passes(cause):
                    raise self._worded(cause, what) from None
                if time.monotonic() + wait > end:
                    raise self._unreachable(cause, what) from None
                time.sleep(wait)
        raise AssertionError("the waits have no end")

    def _unreachable(self, cause: BaseException, what: str) -> Unreachable:
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
        if status in (401, 403):
            return PermissionError(
                f"The object store ({_endpoint()}) refuses {what} in bucket {self.bucket} "
                f"({_reason(cause)}). Check the credentials and the bucket's policy."
            )
        if isinstance(cause, ClientError) and cause.response["Error"].get("Code") == "NoSuchBucket":
            return FileNotFoundError(
                f"The bucket {self.bucket} does not exist at {_endpoint()}. Create it, or check "
                "root and AWS_ENDPOINT_URL."
            )
        return cause


def status_of(error: BaseException) -> int:
    """HTTP status of what a server said; 0 when it said nothing."""
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


def _connection(stall: float) -> s3fs.S3FileSystem:
    """The connection of this process; after a fork, and for another endpoint, a new one."""
    surroundings = tuple(os.environ.get(name, "") for name in _ENVIRONMENT)
    return _connected(os.getpid(), surroundings, stall)


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
        },
    )
    files.retries = 1
    return files


def _waits() -> Iterator[float]:
    """Seconds to wait before each repetition: doubling, with chance so that crowds disperse."""
    wait = _FIRST_WAIT
    while True:
        yield wait * (0.5 + os.urandom(1)[0] / 255)
        wait = min(2 * wait, _LONGEST_WAIT)


def _cause(error: BaseException) -> BaseException:
    """What botocore said, below what s3fs made of it."""
    found = error
    while found.__cause__ is not None and not isinstance(found, ClientError):
        found = found.__cause__
    return found if isinstance(found, ClientError | BotoCoreError) else error


def _passes(cause: BaseException) -> bool:
    if isinstance(cause, ClientError):
        code = str(cause.response["Error"].get("Code", ""))
        return status_of(cause) >= 500 or status_of(cause) in (409, 429) or code in _PASSING_CODES
    return isinstance(cause, (*_PASSING, Damaged))


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
