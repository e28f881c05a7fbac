"""Settings every test runs under."""

import gc
import os
import signal
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from datasets.dataset import open_dataset
from tests.support.globe import published_wheels, what_is_missing_of_earth
from tests.support.lab import Lab
from tests.support.s3.ceph import what_is_missing_for_s3
from tests.support.s3.session import proxy, store
from tests.support.slurm.cluster import SlurmBox, what_is_missing
from tests.support.slurm.session import bare_cluster, bare_slurm_box, cluster, slurm_box
from tests.support.tiny_config import tiny_config

__all__ = [  # fixtures
    "bare_cluster",
    "bare_slurm_box",
    "cluster",
    "proxy",
    "published_wheels",
    "slurm_box",
    "store",
]

# These machines are shared: a slow example says nothing about the code.
# A script that starts the suite in the background ignores Ctrl-C for it; the programs that tests
# start and stop by that signal would inherit this and never stop.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("shared", deadline=None, max_examples=40)
hypothesis.settings.load_profile("shared")

# What a test asks for when it needs a real Slurm, a real S3 server, or files from PyPI.
_BOXES = {
    "slurm": {"cluster", "bare_cluster"},
    "s3": {"store", "proxy", "bucket"},
    "pypi": {"published_wheels"},
}
_CAUSES = {
    "slurm": what_is_missing(),
    "s3": what_is_missing_for_s3(),
    "pypi": what_is_missing_of_earth(),
}
# Seconds of a test on an idle machine by its markers and fixtures; of any other one a tenth.
_SECONDS = {"slurm": 10.0, "ray": 10.0, "long": 5.0, "long_lab": 8.0, "s3": 2.0, "lab": 1.0}
# With CI=true the tests run in any case, and fail where their box cannot start.
_LEFT_OUT = {} if os.environ.get("CI") == "true" else {k: v for k, v in _CAUSES.items() if v}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test that asks for a box, and leave it out where there can be none."""
    left_out = []
    for item in items:
        chosen = getattr(item, "callspec", None)  # of fixtures that may ask for a box or not
        params = chosen.params.values() if chosen else ()
        wanted = {*getattr(item, "fixturenames", ()), *(p for p in params if isinstance(p, str))}
        boxes = [name for name, fixtures in _BOXES.items() if fixtures & wanted]
        for name in boxes:
            item.add_marker(name)
        # One worker has the box; elsewhere the tests of a file share what they made.
        item.add_marker(pytest.mark.xdist_group(boxes[0] if boxes else item.path.stem))
        if _LEFT_OUT.keys() & set(boxes):
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    if "PYTEST_XDIST_WORKER" in os.environ:
        _put_longest_first(items)


def _put_longest_first(items: list[pytest.Item]) -> None:
    """Let the workers take the longest groups first: a long one at the end leaves a core idle."""
    seconds: dict[str, float] = defaultdict(float)
    for item in items:
        names = {*(mark.name for mark in item.iter_markers()), *getattr(item, "fixturenames", ())}
        seconds[_group(item)] += max(
            (_SECONDS[name] for name in names & _SECONDS.keys()), default=0.1
        )
    items.sort(key=lambda item: (-seconds[_group(item)], _group(item)))


def _group(item: pytest.Item) -> str:
    """What one worker runs as a whole."""
    mark = item.get_closest_marker("xdist_group")
    assert mark is not None
    return str(mark.args[0])


def pytest_collection_finish() -> None:
    """Spare the garbage collector torch, the tests and all else that lives to the end anyway."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport]:
    """With a failed test on Slurm: its jobs, and the end of every log under its root."""
    report = yield
    known = getattr(item, "funcargs", {})
    if report.failed and isinstance(box := known.get("cluster"), SlurmBox):
        report.sections.append(("jobs", box.run("scontrol", "-o", "show", "jobs", check=False)))
        roots = {value.root for value in known.values() if isinstance(value, Lab)}
        for log in (path for root in roots for path in sorted(root.rglob("*"))):
            if log.suffix in (".out", ".err", ".log") or log.name == "events.jsonl":
                report.sections.append((str(log), log.read_text(errors="replace")[-3000:]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per box that says what was left out, and how to have it."""
    for name, cause in _LEFT_OUT.items():
        terminalreporter.write_line(f"left out: the tests on a real {name}; {cause}")


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny drawn dataset, drawn once."""
    root = tmp_path_factory.mktemp("data") / "drawn"
    open_dataset(tiny_config(root).data)
    return root
