"""`run.graph=step` changes no bit: with inputs that keep their place, and replayed from a record.

On a CPU a record of operations stands for the CUDA graph, see `tests.support.recorded_graph`.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.two_steps import Case, made_up, stepping
from tests.support.process_groups import in_fresh_process, run_ranks
from tests.support.recorded_graph import RecordedGraph
from tests.support.tiny_config import tiny_config
from trainer.config.schema import Graph, RunConfig
from trainer.determinism import NotDeterministicError
from trainer.distributed import Ranks
from trainer.feed import map_tensors
from trainer.method_registry import METHODS, MethodFacts
from trainer.methods.interface import StepInput, StepResult
from trainer.methods.supervised import Supervised
from trainer.network.deeplab import upsample
from trainer.run import train
from trainer.state import new_state
from trainer.step import graph
from trainer.step.graph import OutsideTensors, check_capture

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CPU = torch.device("cpu")
CAPTURED = "run.graph=step"


def weights(root: str, folder: Path, words: list[str], *, stop: int = 0) -> str:
    """Sha256 of the weights after six steps; or a stop after some of them."""
    asked = iter(range(1, 99))
    config = tiny_config(Path(root), "optim.epochs=2", "evaluation.every_epochs=2", *words)
    summary = train(config, folder, should_stop=lambda: next(asked) == stop)
    return str(summary.weights_sha256)


def with_and_without(root: str, folder: str, words: list[str], stop: int = 0) -> list[str]:
    """Weights of a run without graphs, and of one with them, at first without up to a stop."""
    place = Path(folder)
    digests = [weights(root, place / "none", words)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        recorded(monkeypatch)
        if stop:
            weights(root, place / "record", words, stop=stop)
        digests.append(weights(root, place / "record", [*words, CAPTURED]))
    return digests


def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a second step on a CPU is recorded, and all after it are replayed."""
    monkeypatch.setattr(graph, "WARM_UP", 1)
    if not torch.cuda.is_available():
        monkeypatch.setattr(graph, "capture_on", lambda device: RecordedGraph())


@pytest.mark.parametrize(
    "words",
    [
        ["method=supervised_star"],
        ["method=fixmatch_star", "loss=kl"],
        ["method=unimatch_star", "loss=kl", "method.teacher=ema", "run.memory=recompute"],
        ["method=unimatch_star", "loss=cr", "loss.ramp_unit=epoch"],
        ["method=cutmix_seg", "loss=kl"],
        ["method=mt_cutmix", "loss=kl"],
        ["method=cps", "loss=kl"],
        ["method=ael", "loss=kl"],
    ],
    ids=lambda words: words[0],
)
def test_inputs_that_keep_their_place_change_no_bit(
    drawn_root: Path, tmp_path: Path, words: list[str]
) -> None:
    root, words = str(drawn_root), [*words, "run.device=cpu"]
    expected = weights(root, tmp_path / "none", words)

    weights(root, tmp_path / "step", [*words, CAPTURED], stop=4)

    assert weights(root, tmp_path / "step", [*words, CAPTURED]) == expected
    assert len(expected) == 64


SPECIAL = {  # what a method is captured with besides its defaults
    "supervised": ["loss=none", "optim.criterion=ohem", "optim.ohem_min_kept_per_image=50"],
    "fixmatch": ["loss=kl", "method.teacher=ema", "model.upsample=bilinear"],
    "unimatch": ["loss=cr", "method.teacher=ema", "run.memory=recompute"],
    "ps_mt": ["loss=kl", "method.ps_mt.warmup_epochs=0"],
    "cac": ["loss=kl", "method.cac.supervised_epochs=0"],
    "u2pl": ["loss=kl", "method.u2pl.sup_only_epochs=0"],
}


@pytest.mark.long
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("algorithm", METHODS)
def test_a_captured_run_of_any_method_has_the_bits_of_one_without_graphs(
    drawn_root: Path, tmp_path: Path, algorithm: str, device: str
) -> None:
    words = SPECIAL.get(algorithm, ["loss=kl"])
    words = [*words, f"method.algorithm={algorithm}", f"run.device={device}", "optim.epochs=1"]

    digests = in_fresh_process(with_and_without, str(drawn_root), str(tmp_path), words)

    assert digests == [digests[0]] * 2
    assert len(digests[0]) == 64


def on_a_rank(root: str, folder: str) -> tuple[list[str], str]:
    """The same on a rank; and why gloo would not do on a GPU."""
    digests = with_and_without(root, folder, ["loss=kl", "method.teacher=ema"], stop=2)
    ranks = Ranks(torch.distributed.get_rank(), 2, torch.device("cuda"))
    with pytest.raises(ValueError, match=r"needs NCCL .* has gloo") as refused:
        check_capture(RunConfig(graph=Graph.step), ranks)
    check_capture(RunConfig(), ranks)
    return digests, str(refused.value)


@pytest.mark.long
def test_messages_between_ranks_are_replayed_too(drawn_root: Path, tmp_path: Path) -> None:
    results = run_ranks(on_a_rank, 2, str(drawn_root), str(tmp_path))

    digests = results[0][0]
    assert digests == results[1][0] == [digests[0]] * 2


@dataclass(frozen=True)
class Noting(Supervised):
    """Adds the host's count of steps to a tensor that it makes anew each time."""

    def memory(self) -> dict[str, Tensor]:
        return {"sum": torch.zeros(())}

    def after(self, given: StepInput, result: StepResult) -> None:
        STEPS.append(given.labelled.ids)
        number = len(STEPS) if self.context.config.seed == 1 else 1
        given.memory["sum"] = given.memory["sum"] + number


STEPS: list[tuple[str, ...]] = []


def noted(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> float:
    """What `Noting` has summed after six steps."""
    STEPS.clear()
    facts = MethodFacts(f"{__name__}.Noting", passes=1.0, needs_unlabelled=False)
    monkeypatch.setitem(METHODS, "noting", facts)
    train(tiny_config(root, "method.algorithm=noting", "optim.epochs=2", *words), folder)
    packed: dict[str, Any] = torch.load(max(folder.glob("*/step-*.pt")), weights_only=True)
    assert packed["step"] == 6
    return float(packed["tensors"]["memory.sum"])


def test_a_new_tensor_of_the_memory_goes_where_the_old_one_was(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = noted(drawn_root, tmp_path / "a", monkeypatch)
    recorded(monkeypatch)

    assert eager == noted(drawn_root, tmp_path / "b", monkeypatch, CAPTURED) == 6
    assert STEPS == [()] * 3  # ids lie on the host, so a step must not know them


def test_the_record_shows_a_number_of_the_host_that_is_captured(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert noted(drawn_root, tmp_path / "a", monkeypatch, "seed=1") == 1 + 2 + 3 + 4 + 5 + 6
    recorded(monkeypatch)

    with pytest.raises(NotDeterministicError, match=r"other bits .* in memory\.sum \(1 of"):
        noted(drawn_root, tmp_path / "b", monkeypatch, "seed=1", CAPTURED)


def test_a_graph_keeps_what_it_reads_and_does_not_own() -> None:
    x = torch.randn(1, 2, 4, 4)
    upsample(x, (9, 9), "bilinear")  # makes the matrices, which others may forget

    with OutsideTensors() as outside:
        upsample(x * 2.0, (9, 9), "bilinear").add_(1.0)

    shapes = [tuple(tensor.shape) for tensor in outside.tensors]
    assert shapes == [(1, 2, 4, 4), (9, 4)]


def test_what_cannot_be_captured_is_refused_at_once(drawn_root: Path) -> None:
    with pytest.raises(ValueError, match=r"run\.graph=step cannot .* run\.memory=recompute"):
        tiny_config(drawn_root, CAPTURED, "run.memory=offload")


class Counting(TorchDispatchMode):
    """Counts operations; what a replay does is no operation of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.seen[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def test_beside_its_replays_a_step_fills_its_inputs_and_takes_sgd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded(monkeypatch)
    case, ranks = Case(model="resnet8", crop=17, batch=2, classes=3), Ranks(0, 1, CPU)
    config = replace(case.config, run=RunConfig(device="cpu", graph=Graph.step))
    step = stepping(config, ranks, new_state(config, case.classes, ranks), lr=0.01)
    data = made_up(case, ranks, seed=0)
    step(*data)
    step(*data)  # recorded

    with Counting() as counting:
        step(*data)

    batch: list[Tensor] = []
    map_tensors(data, lambda tensor: batch.append(tensor) or tensor)
    # Alpha; the batch; losses for the log; backbone and head. None of them grows with the network.
    expected = {"fill_": 1, "copy_": len(batch), "clone": 6, "_fused_sgd_": 2}
    assert {name: counting.seen[name] for name in expected} == expected
    assert counting.seen.total() - counting.seen["detach"] == sum(expected.values())
