"""What the tests of the trainer share."""

from pathlib import Path

import pytest
import torch

from datasets.dataset import open_dataset
from tests.support.tiny_config import tiny_config


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As a run has: on a busy machine two threads wait for each other longer than they work."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny drawn dataset, drawn once."""
    root = tmp_path_factory.mktemp("data") / "drawn"
    open_dataset(tiny_config(root).data)
    return root
