"""Fixtures of the S3 box; a conftest imports the ones it offers."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from datasets.storage.open import PATIENCE_SECONDS, STALL_SECONDS
from datasets.storage.s3 import Calls
from tests.support.s3.ceph import DEBIAN, CephBox, missing, shared_box, surroundings
from tests.support.s3.faults import Proxy


@dataclass(frozen=True)
class Store:
    """A bucket of this test alone on a real server, reached through a proxy that can do harm."""

    box: CephBox
    proxy: Proxy
    url: str


@pytest.fixture
def store(proxy: Proxy) -> Iterator[Store]:
    """An empty bucket."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    with surroundings(proxy.port):
        Calls(name, PATIENCE_SECONDS, STALL_SECONDS).ask("create_bucket")
        proxy.heal()
        yield Store(shared_box(), proxy, f"s3://{name}/a/prefix")
    proxy.heal()


@pytest.fixture(scope="session")
def proxy() -> Iterator[Proxy]:
    """One for all tests: a new endpoint would cost each of them a new client."""
    assert not missing(), f"these tests need an S3 server: apt-get install {DEBIAN}"
    with Proxy(shared_box().port) as proxy:
        yield proxy
