"""Reports that the tests of this folder look at; each is made once."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.files import file_sha256
from datasets.known.registry import KNOWN
from orchestrator.planning.plan import make_plan
from orchestrator.report.page import report
from orchestrator.results.store import publish
from orchestrator.storage.local_root import LocalRoot
from sweeps.grid import load_grid
from tests.support.browser import Page, browser, program
from tests.support.report_results import TABLE, publish_drawn
from tests.support.result_rows import DRAWN, row_of
from tests.support.warm_process import WarmCommand
from trainer.checkpoint_manifest import read_manifest

CHECKOUT = Path(__file__).resolve().parents[3]
SHORT = (
    "optim.epochs=1",
    "optim.batch=8",
    "data.drawn.num_train=24",
    "data.drawn.num_val=6",
)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """The report of the grid DRAWN over rows that its runs could have left."""
    root = tmp_path_factory.mktemp("drawn")
    publish_drawn(LocalRoot(root), root)
    return report(make_plan(DRAWN, LocalRoot(root)))[-1]


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """The report of the paper's widest table, with a matrix of 21 classes."""
    folder = tmp_path_factory.mktemp("wide")
    (folder / "grid.yaml").write_text("title: Wide\ntables: [table3]\n")
    grid = load_grid(str(folder / "grid.yaml"))
    names = KNOWN["voc"].spec.class_names
    counts = tuple(tuple(100 if i == j else 1 for j in range(21)) for i in range(21))
    for cell in grid.cells:
        row = row_of(cell, 70.0 + len(cell.loss), class_names=names, best_confusion=counts)
        publish(LocalRoot(folder), row)
    return report(make_plan(str(folder / "grid.yaml"), LocalRoot(folder)))[-1]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A report of runs that really ran, with checkpoints to draw pictures from."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "two.yaml").write_text(TABLE)
    overrides = ", ".join([*SHORT, f"data.root={folder}/drawn"])
    grid = folder / "grid.yaml"
    grid.write_text(f"title: Real runs\ntables: [two.yaml]\noverrides: [{overrides}]\n")
    root = folder / "out"
    launch = WarmCommand(["launch", str(grid), f"root={root}", "backend=inline"], CHECKOUT)
    text, _ = launch.communicate()
    assert launch.returncode == 0, text
    for number, run in enumerate(sorted((root / "runs").iterdir())):
        decide_otherwise(run / "checkpoints/best.pt", number)
    return report(make_plan(str(grid), LocalRoot(root)))[-1]


def decide_otherwise(path, seed):
    """One epoch teaches a network to answer background; other last weights make it answer more."""
    packed = torch.load(path, weights_only=True)
    shape = packed["weights"]["classifier.weight"].shape
    drawn = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    packed["weights"]["classifier.weight"] = torch.from_numpy(drawn)
    torch.save(packed, path)
    manifest = read_manifest(path.with_suffix(".json"))
    renewed = replace(manifest, sha256=file_sha256(path), size=path.stat().st_size)
    path.with_suffix(".json").write_text(renewed.text())


@pytest.fixture(scope="session")
def browser_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page | None]:
    """A page of one browser for all tests; None where there is no browser."""
    if program() is None:
        yield None
        return
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def opened(browser_page: Page | None) -> Page | None:
    """The page as a fresh browser has it, with nothing loaded yet."""
    if browser_page is not None:
        browser_page.reset()
    return browser_page
