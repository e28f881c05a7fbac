"""CUDA refuses or randomises some operations; the step is traced for them where no card is.

The list is of torch 2.11 to 2.15 (field notes: determinism, section 1).
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from datasets.loader import BatchPlan, batches
from datasets.opening import open_dataset
from tests.tiny import tiny_config
from trainer.choices import Distance
from trainer.evaluate import predict
from trainer.inter_pixel_term import InterPixelTerm
from trainer.methods.registry import METHODS
from trainer.methods.step import Networks, Setting
from trainer.ranks import Ranks
from trainer.state import new_state

REFUSED = (
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "_adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "grid_sampler",
    "index_put",
    "index_add",
    "index_copy",
    "scatter_add",
    "scatter_reduce",
    "put_",
    "histc",
    "cumsum",
    "median",
    "reflection_pad",
    "replication_pad",
    "bernoulli",
    "native_dropout",
    "rand",
    "nonzero",  # waits for the device
    "_local_scalar_dense",  # item(): waits for the device
)


class Recorder(TorchDispatchMode):
    """Counts the operations that reach the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.reduced: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        self.seen[name] += 1
        if name == "nll_loss2d_forward" and args[3] != 0:
            self.reduced.append(name)
        if name == "index" and any(i is not None and i.dtype is torch.bool for i in args[1]):
            self.seen["nonzero"] += 1
        return function(*args, **(kwargs or {}))


def refused(seen: Counter[str]) -> list[str]:
    return [name for name in seen for bad in REFUSED if name.startswith(bad)]


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "unimatch_star", "unimatch"])
@pytest.mark.parametrize("loss", ["none", "kl", "cr"])
def test_no_step_uses_an_operation_cuda_refuses(drawn_root: Path, method: str, loss: str) -> None:
    if method == "supervised" and loss != "none":
        method = "fixmatch"
    config = tiny_config(drawn_root, f"method={method}", f"loss={loss}")
    dataset, alone = open_dataset(config.data), Ranks(0, 1, torch.device("cpu"))
    state = new_state(config, dataset.num_classes, alone)
    plan = BatchPlan(
        batch=config.batch,
        stop=1,
        num_channel_bits=state.student.num_channel_bits,
        unlabelled=method != "supervised",
    )
    labelled, unlabelled = next(iter(batches(dataset, config.data, seed=1, plan=plan)))

    with Recorder() as recorder:
        result = METHODS[config.method.algorithm](Setting(config, alone))(
            Networks(state.student, None), labelled, unlabelled
        )
        total = result.loss
        if config.loss.distance is not Distance.none:
            total = total + InterPixelTerm(config.loss, config.batch, alone)(result.pairs)
        total.backward()
        state.descent.step(0.01)

    assert recorder.seen["convolution"] > 20
    assert recorder.seen["nll_loss2d_forward"] >= 1
    assert refused(recorder.seen) == []
    assert recorder.reduced == []


def test_evaluation_uses_none_either(drawn_root: Path) -> None:
    for mode in ("whole", "slide"):
        config = tiny_config(drawn_root, f"evaluation.mode={mode}")
        state = new_state(config, 6, Ranks(0, 1, torch.device("cpu")))
        with Recorder() as recorder, torch.no_grad():
            predict(state.student.eval(), torch.zeros(1, 3, 50, 70, dtype=torch.uint8), config)
        assert refused(recorder.seen) == []


def test_the_recorder_catches_what_it_should() -> None:
    with Recorder() as recorder:
        x = torch.zeros(1, 2, 3, 3, requires_grad=True)
        torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear").sum().backward()
        torch.nn.functional.cross_entropy(x, torch.zeros(1, 3, 3, dtype=torch.int64))
        x.detach()[x.detach() > 0].sum()

    assert {"upsample_bilinear2d", "nonzero"} <= set(refused(recorder.seen))
    assert recorder.reduced == ["nll_loss2d_forward"]
