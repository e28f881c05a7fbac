"""Objects of an S3 bucket below a prefix: atomic, proved by sha256, exclusive where asked."""

import base64
import hashlib
import math
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from datasets.s3_calls import Answer, Calls, Damaged, status_of
from datasets.storage import Entry, Held

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
        scheme, _, place = root.partition("://")
        name, _, prefix = place.partition("/")
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
        if size == 0:
            return b""
        part = start or size is not None
        stop = "" if size is None else start + size - 1
        return self._get(name, Range=f"bytes={start}-{stop}").body if part else self._get(name).body

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
        found: list[Entry] = []
        more: dict[str, str] = {}
        while True:
            head = self.calls.ask("list_objects_v2", Prefix=self.prefix + prefix, **more).head
            for item in head.get("Contents", ()):
                name = item["Key"].removeprefix(self.prefix)
                found.append(Entry(name, item["Size"], item["LastModified"].timestamp()))
            if not head.get("IsTruncated"):
                return sorted(found, key=lambda entry: entry.name)
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
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = self.prefix + name
        started = self.calls.ask("create_multipart_upload", Key=key, Metadata={"sha256": digest})
        place = {"Key": key, "UploadId": started.head["UploadId"]}
        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                numbers = range(1, math.ceil(size / _PART) + 1)
                parts = list(pool.map(lambda number: self._send_part(path, number, place), numbers))
            self._complete(place, parts, digest)
        except BaseException:
            with suppress(Exception):  # the first error says more
                self.calls.ask("abort_multipart_upload", **place)
            raise

    def download(self, name: str, path: Path) -> None:
        """See `Storage.download`."""
        head = self._head(name)
        size, tag = head["ContentLength"], head["ETag"].strip('"')
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        digest = hashlib.sha256()
        try:
            with part.open("xb") as file:
                for start in range(0, size, _PART):
                    stop = min(start + _PART, size) - 1
                    body = self._get(name, Range=f"bytes={start}-{stop}", IfMatch=tag).body
                    digest.update(body)
                    file.write(body)
            if head["Metadata"].get("sha256", digest.hexdigest()) != digest.hexdigest():
                raise OSError(f"{self.url}/{name} arrived damaged; bring it again.")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

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

    def _send_part(self, path: Path, number: int, place: dict[str, str]) -> dict[str, Any]:
        with path.open("rb") as file:
            file.seek((number - 1) * _PART)
            body = file.read(_PART)
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        answer = self.calls.ask(
            "upload_part", PartNumber=number, Body=body, ContentMD5=md5, **place
        )
        return {"PartNumber": number, "ETag": answer.head["ETag"]}

    def _complete(self, place: dict[str, str], parts: list[dict[str, Any]], digest: str) -> None:
        """End a large upload; an answer that was lost shows as an upload that is unknown."""
        try:
            self.calls.ask("complete_multipart_upload", MultipartUpload={"Parts": parts}, **place)
        except ClientError:
            head = self._head(place["Key"].removeprefix(self.prefix))
            if head["Metadata"].get("sha256") != digest:
                raise
