from collections.abc import Iterator

import pytest
import torch

from benchmarks import official_step
from trainer.network.backbone import Backbone
from trainer.network.deeplab import normalise


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both ways compute in float64, from the same pixels in float32."""
    normalise(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))  # makes its constants, in float32
    single = Backbone.features
    monkeypatch.setattr(Backbone, "features", lambda own, x: single(own, x.double()))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(official_step, "pixels", normalise)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
