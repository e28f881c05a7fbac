"""What a CUDA graph is, on a CPU: operations recorded with their tensors, and carried out again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

Result = TypeVar("Result")


class RecordedGraph:
    """A `trainer.step.graph.Capture` whose replays know nothing but addresses and numbers.

    Every operation runs again on the memory and with the numbers of its recording, so what was not
    filled before a replay is what it was then.
    """

    def beside(self) -> AbstractContextManager[None]:
        """There is one stream."""
        return nullcontext()

    def __call__(self, function: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """What `function` returns, its writes taken back; and what carries it out again."""
        with _Recording() as recording:
            result = function()
        recording.take_back()
        return result, recording.replay


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.overwritten: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self.overwritten += [(value, value.clone()) for value in _written(function, args, kwargs)]
        result = function(*args, **kwargs)
        self.calls.append((function, args, kwargs, result))
        return result

    @torch.no_grad()
    def take_back(self) -> None:
        """Undo every write, the last one first."""
        for value, before in reversed(self.overwritten):
            value.copy_(before)
        self.overwritten.clear()

    def replay(self) -> None:
        """What a graph does is seen by no dispatch mode."""
        with _disable_current_modes(), torch.no_grad():
            self._replay()

    def _replay(self) -> None:
        """Every operation once more; a result that is memory of its own goes where it was."""
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            for returned, old, new in zip(
                function._schema.returns, _several(result), _several(again), strict=False
            ):
                if isinstance(old, torch.ScriptObject):
                    new.wait()  # a message between ranks
                elif returned.alias_info is None:
                    for kept, value in zip(tree_leaves(old), tree_leaves(new), strict=True):
                        if isinstance(kept, Tensor):
                            kept.copy_(value)


def _several(result: Any) -> Sequence[Any]:
    return result if isinstance(result, tuple) else (result,)


def _written(function: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The tensors that an operation is about to change."""
    for place, argument in enumerate(function._schema.arguments):
        # Batch norm moves its running statistics, of which its schema says nothing.
        hidden = argument.name.startswith("running_") and "batch_norm" in function._schema.name
        if hidden or (argument.alias_info is not None and argument.alias_info.is_write):
            given = kwargs.get(argument.name, args[place : place + 1])
            yield from (value for value in tree_leaves(given) if isinstance(value, Tensor))
