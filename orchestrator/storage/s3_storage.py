"""The connection to a bucket, one per address and patience; how long to wait for its server."""

import os
from functools import lru_cache

from datasets.storage.base import Storage
from datasets.storage.open import PATIENCE_SECONDS, open_storage

PATIENCE_VARIABLE = "STORE_PATIENCE_SECONDS"  # of the environment: before a run gives up
SHORT_PATIENCE = 10.0  # seconds, for requests that can be repeated later


def patience_seconds() -> float:
    """How long the server may fail before an attempt gives up."""
    return float(os.environ.get(PATIENCE_VARIABLE, PATIENCE_SECONDS))


@lru_cache(maxsize=16)
def storage_of(url: str, *, patience: float | None = None) -> Storage:
    """The storage at s3://bucket/prefix; with the patience of an attempt where none is given."""
    return open_storage(url, patience=patience_seconds() if patience is None else patience)
