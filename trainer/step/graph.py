"""`run.graph=step`: the training step captured as CUDA graphs and replayed.

A step of UniMatch launches thousands of kernels, each of which takes the host some microseconds. A
graph launches them all at once. It holds kernels with the addresses and numbers that they had when
it was captured. So what differs from step to step lies in tensors that keep their place and are
filled before a replay: the batch, alpha of the inter-pixel term, the numbers of the method.

Optimisers run between two graphs, of gradients and of `Method.after`. Their kernels take the
learning rate from the host as float64, and from a tensor as float32 only, which is another rate.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.config.schema import Graph, RunConfig, TrainConfig
from trainer.determinism import NotDeterministicError, checksums
from trainer.distributed import Ranks
from trainer.feed import map_tensors
from trainer.methods.interface import Method, StepInput, StepResult
from trainer.objective import Objective
from trainer.state import TrainState
from trainer.step.eager import Step

# Steps before the capture: libraries choose kernels and make their workspaces in the first ones.
WARM_UP = 3
Result = TypeVar("Result")


class Capture(Protocol):
    """How launches are captured; on CUDA `CudaCapture`."""

    def beside(self) -> AbstractContextManager[None]:
        """A context in which the steps before a capture run."""

    def __call__(self, function: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """What `function` returns, without its effect, and a call that has its effect."""


def step_of(config: TrainConfig, ranks: Ranks, state: TrainState) -> "Step | GraphStep":
    """The step of a run as `run.graph` asks for it; on a CPU `step` means no capture."""
    step = Step(Objective.of(config, ranks), state, ranks)
    return step if config.run.graph is Graph.none else GraphStep(step, capture_on(ranks.device))


def capture_on(device: torch.device) -> Capture | None:
    """How steps are captured on a device; None where they cannot be."""
    return CudaCapture(device) if device.type == "cuda" else None


def check_capture(run: RunConfig, ranks: Ranks) -> None:
    """Refuse what cannot be captured and is not known from the configuration alone.

    Raises:
        ValueError: ranks on CUDA that do not talk over NCCL.
    """
    if run.graph is Graph.none or ranks.device.type != "cuda" or ranks.world_size == 1:
        return
    backend = dist.get_backend()
    if "nccl" not in backend:
        raise ValueError(
            f"run.graph=step needs NCCL between the ranks, and this process group has {backend}, "
            "which sends from the host; use run.graph=none, or a group of NCCL."
        )


class GraphStep:
    """The step with inputs that keep their place; replayed from a capture where there is one.

    The step that is captured runs twice, without the graph and with it, from the same state. Unless
    every tensor is then the same to the last bit, the run ends here.

    Args:
        step: operation by operation.
        capture: None takes every step so.
    """

    def __init__(self, step: Step, capture: Capture | None) -> None:
        self._step = step
        self._capture = capture
        self._inputs: _Inputs | None = None
        self._captured: _CapturedStep | None = None
        self._num_steps = 0

    @property
    def method(self) -> Method:
        """The method whose step it is."""
        return self._step.method

    def __call__(self, given: StepInput, *, weight: float, rate: float) -> dict[str, Tensor]:
        """As of `Step`; raises `NotDeterministicError` if a replay has other bits."""
        if self._inputs is None:
            self._inputs = _Inputs.like(given, self._step.ranks.device)
        inputs = self._inputs
        inputs.fill(given, weight)
        if self._capture is None:
            terms = self._step(inputs.given, weight=inputs.weight, rate=rate)
        elif self._num_steps < WARM_UP:
            with self._capture.beside():
                terms = self._step(inputs.given, weight=inputs.weight, rate=rate)
        else:
            if self._captured is None:
                self._captured = _proven(self._step, self._capture, inputs, rate)
            else:
                self._captured.replay(rate)
            terms = self._captured.result.terms
        self._num_steps += 1
        return {name: value.clone() for name, value in terms.items()}


@dataclass(frozen=True)
class _Inputs:
    """What a step reads besides the state, in tensors that keep their place."""

    given: StepInput
    weight: Tensor
    numbers: dict[str, Tensor]

    @classmethod
    def like(cls, given: StepInput, device: torch.device) -> "_Inputs":
        """Made for all steps after the first one; without ids, which lie on the host."""
        numbers = {name: torch.zeros((), device=device) for name in given.numbers}
        labelled = replace(map_tensors(given.labelled, torch.clone), ids=())
        unlabelled = given.unlabelled
        if unlabelled is not None:
            unlabelled = replace(map_tensors(unlabelled, torch.clone), ids=(), mix_ids=())
        kept = replace(given, labelled=labelled, unlabelled=unlabelled, numbers=numbers)
        return cls(kept, torch.zeros((), device=device), numbers)

    def fill(self, given: StepInput, weight: float) -> None:
        """Take the values of a step."""
        self.weight.fill_(weight)
        for name, number in given.numbers.items():
            self.numbers[name].fill_(number)
        for mine, value in zip(_batch(self.given), _batch(given), strict=True):
            assert mine.shape == value.shape
            mine.copy_(value)


def _batch(given: StepInput) -> list[Tensor]:
    tensors: list[Tensor] = []

    def add(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors((given.labelled, given.unlabelled), add)
    return tensors


def _proven(step: Step, capture: Capture, inputs: _Inputs, rate: float) -> "_CapturedStep":
    """Capture the step and take it, once without the graphs and once by them.

    Raises:
        NotDeterministicError: the two differ in some bit.
    """
    state = step.state
    before = {name: value.to("cpu", copy=True) for name, value in state.tensors().items()}
    with capture.beside():
        result = step.gradients(inputs.given, inputs.weight)
        step.descend(rate)
        with OutsideTensors() as outside:
            step.after(inputs.given, result)
        expected = state.tensors() | result.terms
        names, sums = list(expected), checksums(expected)
    for name, value in state.tensors().items():
        value.copy_(before[name])
    captured = _CapturedStep.of(step, capture, inputs, has_after=bool(outside.tensors))
    captured.replay(rate)
    differs = checksums(state.tensors() | captured.result.terms) != sums
    # Summed over ranks, so that all of them end here and none waits for the others.
    counts = step.ranks.sum(differs.long()).tolist()
    differing = [name for name, count in zip(names, counts, strict=True) if count]
    if differing:
        raise NotDeterministicError(
            "The captured step gives other bits than the step itself in "
            f"{', '.join(differing[:3])} ({len(differing)} of {len(names)} tensors). "
            "Use run.graph=none on this machine."
        )
    return captured


@dataclass
class _CapturedStep:
    """Two graphs with the optimisers between them.

    Attributes:
        result: of the last replay, in tensors that keep their place.
        gradients: of every parameter that has one; they keep their place, too.
        outside: what the graphs read and do not own, kept here since a graph knows addresses only.
    """

    step: Step
    result: StepResult
    gradients: list[tuple[nn.Parameter, Tensor]]
    outside: list[Tensor]
    replay_gradients: Callable[[], None]
    replay_after: Callable[[], None] | None

    @classmethod
    def of(
        cls, step: Step, capture: Capture, inputs: _Inputs, *, has_after: bool
    ) -> "_CapturedStep":
        """Capture both parts; nothing moves. `has_after` is False where the second is empty."""
        outside = OutsideTensors()

        def gradients() -> StepResult:
            with outside:
                return step.gradients(inputs.given, inputs.weight)

        def after() -> None:
            with outside:
                step.after(inputs.given, result)

        result, replay_gradients = capture(gradients)
        parameters = [p for o in step.state.optimisers.values() for p in o.parameters.values()]
        kept = [(p, p.grad) for p in parameters if p.grad is not None]
        replay_after = capture(after)[1] if has_after else None
        return cls(step, result, kept, outside.tensors, replay_gradients, replay_after)

    def replay(self, rate: float) -> None:
        """Take one step."""
        self.replay_gradients()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        self.step.descend(rate)
        if self.replay_after is not None:
            self.replay_after()


class OutsideTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, collects what operations read and none of them made.

    Attributes:
        tensors: one for each piece of memory.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors: list[Tensor] = []
        self._seen: set[int] = set()  # addresses of memory from outside, or made within

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Carry out an operation."""
        for tensor in _tensors((args, kwargs)):
            if tensor.untyped_storage().data_ptr() not in self._seen:
                self._seen.add(tensor.untyped_storage().data_ptr())
                self.tensors.append(tensor)
        result = function(*args, **(kwargs or {}))
        self._seen.update(tensor.untyped_storage().data_ptr() for tensor in _tensors(result))
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


class CudaCapture:
    """Captures by torch.cuda.graph, on one stream and with one pool of memory for all graphs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Launches within go to the stream of the capture, in order with those before and after."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def __call__(self, function: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """See `Capture`."""
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads, which write checkpoints, may use the device meanwhile.
        capturing = torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        with torch.cuda.device(self._device), capturing:
            result = function()
        return result, graph.replay
