"""Networks by name, their optimisers, and the memory of a method, equal on all ranks."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing import ProcessRaisedException

from tests.support.process_groups import run_ranks
from tests.support.tiny_config import tiny_config
from trainer.config.schema import OptimConfig
from trainer.determinism import checksums
from trainer.distributed import Ranks
from trainer.method_registry import METHODS, MethodFacts
from trainer.methods.interface import NetworkSpec, StepInput, StepResult
from trainer.methods.supervised import Supervised
from trainer.network.deeplab import MeanLogits
from trainer.optimisers.sgd import SGD
from trainer.run import train
from trainer.state import new_state

ALONE = Ranks(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class Several(Supervised):
    """Two trained networks that differ in their heads, a frozen copy, and a vector."""

    def networks(self) -> dict[str, NetworkSpec]:
        return {
            "student": NetworkSpec(),
            "second": NetworkSpec(head_key="second", decays_all=False),
            "frozen": NetworkSpec(is_trained=False, copy_of="second"),
        }

    def memory(self) -> dict[str, Tensor]:
        return {"vector": torch.zeros(3)}

    def deployed(self) -> tuple[str, ...]:
        return ("second", "frozen")

    def after(self, given: StepInput, result: StepResult) -> None:
        given.memory["vector"].add_(1.0 + self.context.ranks.rank)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = MethodFacts(f"{__name__}.Several", passes=1.0, needs_unlabelled=False)
    monkeypatch.setitem(METHODS, "several", facts)


def test_networks_share_the_backbone_and_differ_in_the_head(drawn_root: Path) -> None:
    state = new_state(tiny_config(drawn_root, "method.algorithm=several"), 6, ALONE)
    student, second, frozen = (network.state_dict() for network in state.networks.values())

    for name, value in student.items():
        drawn = "backbone" not in name and (value.dim() == 4 or name == "classifier.bias")
        assert torch.equal(value, second[name]) is not drawn, name
        assert torch.equal(frozen[name], second[name])
    assert list(state.optimisers) == ["student", "second"]
    assert [network.training for network in state.networks.values()] == [True, True, False]
    assert not any(value.requires_grad for value in state.networks["frozen"].parameters())


def test_what_has_no_gradient_stays_and_the_rest_moves(drawn_root: Path, tmp_path: Path) -> None:
    config = tiny_config(drawn_root, "method.algorithm=several", "optim.epochs=1")
    start = new_state(config, 6, ALONE).tensors()
    steps = train(config, tmp_path).steps
    path = tmp_path / "checkpoints" / f"step-{steps:08d}.pt"
    tensors = torch.load(path, weights_only=True)["tensors"]

    moved = {name.split(".")[1] for name in start if not torch.equal(start[name], tensors[name])}

    assert moved == {"student", "vector"}
    assert tensors["memory.vector"].tolist() == [steps] * 3


def test_several_networks_are_deployed_as_the_mean_of_their_logits(drawn_root: Path) -> None:
    state = new_state(tiny_config(drawn_root, "method.algorithm=several"), 6, ALONE)
    second, frozen = state.networks["second"], state.networks["frozen"]
    with torch.no_grad():
        frozen.classifier.bias.add_(1.0)
    network, images = state.deployed_network().eval(), torch.randn(1, 3, 32, 32)

    mean = network(images)

    assert isinstance(network, MeanLogits)
    assert torch.allclose(mean, (second(images) + frozen(images)) / 2)
    assert set(state.weights()) == {
        f"networks.{name}.{inner}" for name in ("second", "frozen") for inner in second.state_dict()
    }


def test_decay_may_spare_biases_and_batch_norm() -> None:
    layer = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    before = {name: value.detach().clone() for name, value in layer.named_parameters()}
    for value in layer.parameters():
        value.grad = torch.zeros_like(value)
    optim = OptimConfig(weight_decay=0.5, head_lr_factor=1.0)

    SGD.over(layer, optim, decays_all=False).step(0.1)

    for name, value in layer.named_parameters():
        factor = 0.95 if name == "0.weight" else 1.0
        assert torch.allclose(value, before[name] * factor), name


def train_on_two_ranks(root: str, folder: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        register(monkeypatch)
        config = tiny_config(Path(root), "method.algorithm=several", "optim.epochs=1")
        train(config, Path(folder))


def test_memory_that_differs_between_ranks_is_never_saved(drawn_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ProcessRaisedException, match=r"differ at step \d+ in memory.vector \(1 of"):
        run_ranks(train_on_two_ranks, 2, str(drawn_root), str(tmp_path))

    assert not list((tmp_path / "checkpoints").glob("step-*"))


def test_a_checksum_sees_every_bit_and_the_order_of_rows() -> None:
    rows = torch.arange(12, dtype=torch.float16).view(3, 4)
    changed = rows.clone()
    changed[2, 3] += 0.01
    views = [
        rows,
        changed,
        rows.flip(0),
        rows.T,
        -rows,
        rows.to(memory_format=torch.preserve_format),
    ]

    numbers = checksums({str(index): view for index, view in enumerate(views)}).tolist()

    assert len(set(numbers[:5])) == 5
    assert numbers[5] == numbers[0]
    assert len(checksums({"a": torch.zeros(0), "b": torch.tensor(True)})) == 2
