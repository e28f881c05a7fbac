"""Settings every test runs under."""

import os

import hypothesis
import pytest

from tests.boxes.s3_session import is_s3_here, proxy, store
from tests.boxes.slurm import what_is_missing
from tests.boxes.slurm_session import bare_cluster, bare_slurm_box, cluster, slurm_box

__all__ = [  # fixtures
    "bare_cluster",
    "bare_slurm_box",
    "cluster",
    "is_s3_here",
    "proxy",
    "slurm_box",
    "store",
]

# These machines are shared: a slow example says nothing about the code.
hypothesis.settings.register_profile("shared", deadline=None, max_examples=40)
hypothesis.settings.load_profile("shared")

# With CI=true the tests run in any case, and fail where their Slurm cannot start.
_NO_SLURM = "" if os.environ.get("CI") == "true" else what_is_missing()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test that asks for a real Slurm, and leave it out where there can be none."""
    boxes = {"cluster", "bare_cluster"}
    wanting = [item for item in items if boxes & set(getattr(item, "fixturenames", ()))]
    for item in wanting:
        item.add_marker("slurm")
    if _NO_SLURM:
        config.hook.pytest_deselected(items=wanting)
        items[:] = [item for item in items if item not in wanting]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line that says what was left out, and how to have it."""
    if _NO_SLURM:
        terminalreporter.write_line(f"left out: the tests on a real Slurm; {_NO_SLURM}")
