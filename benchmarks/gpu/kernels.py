"""Which library computes the dilated convolutions and the batch normalisation of a network."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from benchmarks.gpu.entries import Line
from benchmarks.table import in_turn
from benchmarks.two_steps import Case, made_up, ours
from trainer import determinism
from trainer.config.schema import RunConfig
from trainer.distributed import Ranks
from trainer.network.deeplab import normalise
from trainer.state import autocast, new_state

# torch's operator of each library that may compute a convolution.
CONVOLUTIONS = {
    "aten::cudnn_convolution": "cuDNN",
    "aten::mkldnn_convolution": "oneDNN",
    "aten::slow_conv_dilated2d": "torch's slow_conv_dilated2d",
    "aten::_slow_conv2d_forward": "torch's slow_conv2d",
    "aten::thnn_conv2d": "torch's slow_conv2d",
}
# Parts of the names of the kernels that torch launches in place of cuDNN's, also in the backward
# pass, where the operator does not show the library.
SLOW_KERNELS = ("im2col", "col2im", "vol2col", "conv_depthwise")


@dataclass(frozen=True)
class Names:
    """What a call launched.

    Attributes:
        operators: of torch, such as aten::convolution.
        kernels: on the card; none on a CPU.
    """

    operators: frozenset[str]
    kernels: frozenset[str] = frozenset()


def launched_by(call: Callable[[], object], device: torch.device) -> Names:
    """The operators and kernels of a call, as torch's profiler sees them."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
        call()  # the first call also searches and loads kernels
    with torch.profiler.profile(activities=kinds) as profile:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
    events: Sequence[FunctionEvent] = profile.events() or ()
    return Names(
        frozenset(event.name for event in events if event.name.startswith("aten::")),
        frozenset(event.name for event in events if event.device_type == DeviceType.CUDA),
    )


def dilated_convolutions(case: Case, ranks: Ranks, run: RunConfig, *, rounds: int) -> Line:
    """Forward and backward of every dilated convolution beside the same one without dilation.

    The time is that of the convolution for which this ratio is the largest.
    """
    config = replace(case.config, run=run)
    determinism.enable_determinism(config)
    network = new_state(config, case.classes, ranks).networks["student"]
    images = torch.zeros(case.batch, 3, case.crop, case.crop, dtype=torch.uint8).to(ranks.device)
    seen: list[Names] = []
    compared: list[tuple[float, int, tuple[float, ...]]] = []
    for module, x in _dilated(network, normalise(images)):
        plain = nn.Conv2d(module.in_channels, module.out_channels, 3, padding=1, bias=False)
        plain = plain.to(x.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        calls = {
            name: lambda layer=layer, x=x: _there_and_back(layer, x, case, ranks)
            for name, layer in (("dilated", module), ("plain", plain))
        }
        seen.append(launched_by(calls["dilated"], ranks.device))
        dilated, other = in_turn(calls, rounds=rounds, device=ranks.device.type)
        times = statistics.median(dilated.values) / max(statistics.median(other.values), 1e-9)
        compared.append((times, module.dilation[0], tuple(dilated.values)))
    times, dilation, seconds = max(compared)
    return Line(
        f"by {library(seen)}; at most {times:.1f} times an undilated one (dilation {dilation})",
        seconds,
    )


def library(seen: Iterable[Names]) -> str:
    """Which library computed the convolutions of some calls, and kernels that contradict it."""
    everything = list(seen)
    names = {name for called in everything for name in called.operators & set(CONVOLUTIONS)}
    slow = {
        name
        for called in everything
        for name in called.kernels
        if any(part in name for part in SLOW_KERNELS)
    }
    text = ", ".join(sorted({CONVOLUTIONS[name] for name in names})) or "an unknown library"
    return f"{text}, BUT ALSO {', '.join(sorted(slow))}" if slow else text


def batch_norm_operators(names: Names) -> str:
    """The operators of batch normalisation, without those that only call another one."""
    wrappers = ("aten::batch_norm", "aten::_batch_norm_impl_index")
    chosen = {name for name in names.operators if "batch_norm" in name and name not in wrappers}
    return ", ".join(sorted(name.removeprefix("aten::") for name in chosen))


def batch_norm(case: Case, ranks: Ranks, run: RunConfig) -> Line:
    """The operators of batch normalisation in one step."""
    config = replace(case.config, run=run)
    determinism.enable_determinism(config)
    step = ours(config, ranks, case.classes)
    labelled, unlabelled = made_up(case, ranks, seed=0)
    names = launched_by(lambda: step(labelled, unlabelled), ranks.device)
    return Line(f"by {batch_norm_operators(names)}")


@torch.no_grad()
def _dilated(network: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, Tensor]]:
    """Every dilated convolution of a network with its input, one of each shape."""
    inputs: list[tuple[nn.Conv2d, Tensor]] = []
    modules = [
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and module.dilation != (1, 1)
    ]
    hooks = [
        module.register_forward_pre_hook(lambda m, given: inputs.append((m, given[0].clone())))
        for module in modules
    ]
    network(images)
    for hook in hooks:
        hook.remove()

    def shape(entry: tuple[nn.Conv2d, Tensor]) -> tuple[int, ...]:
        return (entry[0].dilation[0], entry[0].out_channels, *entry[1].shape)

    return [next(group) for _, group in groupby(sorted(inputs, key=shape), key=shape)]


def _there_and_back(module: nn.Conv2d, x: Tensor, case: Case, ranks: Ranks) -> None:
    """Forward and backward, as in the step of the case."""
    given = x.detach().requires_grad_()
    with autocast(case.precision, ranks.device):
        y = module(given)
    y.backward(torch.ones_like(y))
    module.zero_grad()
