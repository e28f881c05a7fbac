"""Opening the storage at a root: a local folder, or a bucket for s3:// URLs."""

import re
from pathlib import Path

from datasets.storage.base import Storage

PATIENCE_SECONDS = 120.0  # how long a store may fail before we give up
STALL_SECONDS = 20.0  # how long one request may get no data before it counts as failed


_ALMOST_URL = re.compile(r"(s3|s3a|gs|https?|file):(?!//)", re.IGNORECASE)


def is_url(root: str) -> bool:
    """Whether a root is an object store and not a folder.

    Raises:
        ValueError: a slash of a URL is missing.
    """
    almost = _ALMOST_URL.match(root)
    if almost:
        rest = root[almost.end() :].lstrip("/")
        raise ValueError(
            f"{root} is no URL: it lacks a slash. Write {almost[1].lower()}://{rest}, or ./{root} "
            "for a folder of that name."
        )
    return "://" in root and not root.startswith("file://")


def folder_of(root: str) -> Path:
    """The folder at a root that is no URL; file:// is left out, ~ and ~/x begin at home."""
    path = root.removeprefix("file://")
    return Path(path).expanduser() if path == "~" or path.startswith("~/") else Path(path)


def open_storage(
    root: str, *, patience: float = PATIENCE_SECONDS, stall: float = STALL_SECONDS
) -> Storage:
    """The storage at a root.

    Args:
        root: a folder, or s3://bucket/prefix. Endpoint and credentials come from where all of
            Amazon's tools take them: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and so on, AWS_PROFILE.
        patience: seconds of failures until we give up.
        stall: seconds of silence until a request counts as failed.

    Raises:
        ValueError: another kind of URL, or one with credentials in it.
    """
    if not is_url(root):
        from datasets.storage.local import FolderStorage

        return FolderStorage(folder_of(root))
    from datasets.storage.s3 import Bucket

    return Bucket.at(root, patience=patience, stall=stall)
