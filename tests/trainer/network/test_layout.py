"""Every convolution sees channels last: deterministic dilated ones are many times slower else."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.two_steps import Case, made_up, stepping
from trainer.config.schema import Precision, Upsample
from trainer.distributed import Ranks
from trainer.state import new_state


class Convolutions(TorchDispatchMode):
    """Writes down the image and the kernel of every convolution, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.elsewhere: list[tuple[str, torch.Size]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        places = {"convolution": (0, 1), "convolution_backward": (1, 2)}.get(name, ())
        self.names.extend([name] * bool(places))
        for place in places:
            if not args[place].is_contiguous(memory_format=torch.channels_last):
                self.elsewhere.append((name, args[place].shape))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
@pytest.mark.parametrize(
    ("model", "upsample"),
    [*(("resnet8", upsample) for upsample in Upsample), ("efficientnet_lite0", Upsample.nearest)],
)
def test_a_step_keeps_channels_last_on_its_way(
    model: str, upsample: Upsample, precision: Precision
) -> None:
    case = Case(model=model, crop=33, batch=2, classes=5, upsample=upsample, precision=precision)
    ranks = Ranks(0, 1, torch.device("cpu"))
    state = new_state(case.config, case.classes, ranks)
    bits = state.networks["student"].num_channel_bits
    step = stepping(case.config, ranks, state, lr=0.1)

    with Convolutions() as seen:  # evaluation, training, feature dropout, backward
        step(*made_up(case, ranks, num_bits=bits, seed=0))

    assert seen.names.count("convolution") > 60
    assert seen.names.count("convolution_backward") > 40
    assert seen.elsewhere == []
