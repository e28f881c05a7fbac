"""Fixtures of the S3 box; a conftest imports the ones it offers."""

import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from datasets.s3_calls import Calls
from datasets.storage import PATIENCE_SECONDS, STALL_SECONDS
from tests.boxes.ceph import DEBIAN, CephBox, missing, shared_box, surroundings
from tests.boxes.faults import Proxy


@dataclass(frozen=True)
class Store:
    """A bucket of this test alone on a real server, reached through a proxy that can do harm."""

    box: CephBox
    proxy: Proxy
    url: str


@pytest.fixture
def store(proxy: Proxy | None) -> Iterator[Store | None]:
    """None where the server is not installed: the test says no more then."""
    if proxy is None:
        yield None
        return
    name = f"b-{uuid.uuid4().hex[:12]}"
    with surroundings(proxy.port):
        Calls(name, PATIENCE_SECONDS, STALL_SECONDS).ask("create_bucket")
        proxy.heal()
        yield Store(shared_box(), proxy, f"s3://{name}/a/prefix")
    proxy.heal()


@pytest.fixture(scope="session")
def proxy(is_s3_here: bool) -> Iterator[Proxy | None]:
    """One for all tests: a new endpoint would cost each of them a new client."""
    if not is_s3_here:
        yield None
        return
    with Proxy(shared_box().port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def is_s3_here() -> bool:
    """Whether the S3 server is installed; in CI it must be."""
    lacking = missing()
    if lacking:
        assert os.environ.get("CI") != "true", f"CI needs an S3 server: apt-get install {DEBIAN}"
        sys.stderr.write(f"left out: tests on S3 need {lacking[0]} (apt-get install {DEBIAN})\n")
    return not lacking
