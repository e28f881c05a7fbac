"""Trees of data that several tests use; a test that changes one makes its own."""

from pathlib import Path

import pytest

from datasets.config import DataConfig, SyntheticConfig
from datasets.dataset import Dataset, open_dataset

SMALL = SyntheticConfig(num_train=10, num_val=3, width=56, height=40, num_classes=5, seed=4)


def drawn_config(root: Path) -> DataConfig:
    return DataConfig(root=str(root), split="n4", crop=32, drawn=SMALL)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Ten small training scenes, four with labels; read only."""
    return drawn_config(tmp_path_factory.mktemp("data") / "drawn")


@pytest.fixture(scope="session")
def dataset(config: DataConfig) -> Dataset:
    return open_dataset(config)


@pytest.fixture
def own_config(tmp_path: Path) -> DataConfig:
    """The same scenes, not drawn yet, for this test alone."""
    return drawn_config(tmp_path / "drawn")
