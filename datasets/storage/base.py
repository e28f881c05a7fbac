"""The storage interface: named objects of bytes, in a folder or an S3 bucket.

An object appears whole or not at all. The store decides `create` and `replace` atomically, so of
several concurrent writers, on one machine or many, exactly one succeeds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# Of the environment, for workers: their launch has reached the store, so what only the user can
# mend, such as credentials that ran out, is waited for from their first request on.
WAIT_VARIABLE = "STORE_WAITS_FOR_USER"


@dataclass(frozen=True)
class Entry:
    """An object in a listing.

    Attributes:
        name: below the root of the storage.
        size: bytes.
    """

    name: str
    size: int


@dataclass(frozen=True)
class Held:
    """An object's content, and the tag that names exactly this content for `replace`.

    Attributes:
        age_seconds: since it was put, by the clock of the store alone.
    """

    content: bytes
    tag: str
    age_seconds: float = 0.0


class Storage(Protocol):
    """Objects under a root; names are relative, with slashes.

    Every method raises Unreachable when the store fails for longer than its patience, and
    PermissionError when it refuses; both texts say what to do. FileNotFoundError names an object
    (or a bucket) that does not exist.
    """

    @property
    def url(self) -> str:
        """The root, as the user wrote it."""

    def read(self, name: str, *, start: int = 0, size: int | None = None) -> bytes:
        """The bytes of an object, or a range of them."""

    def view(self, name: str, start: int, size: int) -> memoryview:
        """A range of an object where it arrived, for readers that copy the parts they keep."""

    def hold(self, name: str) -> Held:
        """An object's bytes with their tag."""

    def write(self, name: str, content: bytes) -> None:
        """Put an object; an existing one is replaced."""

    def create(self, name: str, content: bytes) -> bool:
        """Put an object unless one is there; whether this call did it."""

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """Put an object if the one with this tag is there; whether this call did it."""

    def entries(self, prefix: str = "") -> list[Entry]:
        """All objects whose name begins so, sorted by name."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""

    def copy(self, name: str, target: str) -> None:
        """Put the content of one object under another name, too."""

    def upload(self, path: Path, name: str) -> None:
        """Put a file of any size."""

    def download(self, name: str, path: Path) -> None:
        """Write an object of any size to a local file, atomically."""
