"""What the tests of the trainer share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As a run has: on a busy machine two threads wait for each other longer than they work."""
    torch.set_num_threads(1)
