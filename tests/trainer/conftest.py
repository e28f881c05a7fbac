"""What the tests of the trainer share."""

from pathlib import Path

import pytest

from datasets.opening import open_dataset
from tests.tiny import tiny_config


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny drawn dataset, drawn once."""
    root = tmp_path_factory.mktemp("data") / "drawn"
    open_dataset(tiny_config(root).data)
    return root
