"""Settings every test runs under."""

import os

import hypothesis
import pytest

from tests.boxes.s3_session import is_s3_here, proxy, store
from tests.boxes.slurm import what_is_missing
from tests.boxes.slurm_session import bare_cluster, cluster, slurm_box

__all__ = ["bare_cluster", "cluster", "is_s3_here", "proxy", "slurm_box", "store"]  # fixtures

# These machines are shared: a slow example says nothing about the code.
hypothesis.settings.register_profile("shared", deadline=None, max_examples=40)
hypothesis.settings.load_profile("shared")

_NO_SLURM = "" if os.environ.get("CI") == "true" else what_is_missing()
# With CI=true the tests run in any case, and fail where their Slurm cannot start.
collect_ignore_glob = ["slurm/*", "orchestrator/*slurm*"] if _NO_SLURM else []


def pytest_report_header() -> str:
    """One line that says what was left out."""
    return f"left out: tests on a real Slurm ({_NO_SLURM})" if _NO_SLURM else "with a real Slurm"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for a real Slurm: `make test-slurm` runs these."""
    boxes = {"cluster", "bare_cluster"}
    for item in items:
        if boxes & set(getattr(item, "fixturenames", ())):
            item.add_marker("slurm")
