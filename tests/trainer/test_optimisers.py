"""Adam against torch's class, and what a run with it keeps."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import in_pieces, straight
from trainer.config.schema import OptimConfig, OptimiserKind
from trainer.distributed import Ranks
from trainer.optimisers.adam import Adam, new_optimiser
from trainer.state import new_state


def test_adam_is_that_of_torch_with_its_groups_and_a_weight_decay() -> None:
    ours, theirs = (
        nn.ModuleDict({"backbone": nn.Linear(3, 2), "head": nn.Linear(3, 2)}) for _ in "12"
    )
    for network in (ours.double(), theirs.double()):
        for at, value in enumerate(network.parameters()):
            nn.init.constant_(value, 0.1 * (at + 1))
    optim = OptimConfig(optimiser=OptimiserKind.adam, weight_decay=0.1, head_lr_factor=10.0)
    optimiser = new_optimiser(ours, optim, decays_all=False)
    torchs = torch.optim.Adam(
        [
            {"params": [layer.weight], "lr": rate, "weight_decay": 0.1}
            for layer, rate in ((theirs["backbone"], 1e-3), (theirs["head"], 1e-2))
        ]
        + [
            {"params": [layer.bias], "lr": rate, "weight_decay": 0.0}
            for layer, rate in ((theirs["backbone"], 1e-3), (theirs["head"], 1e-2))
        ]
    )

    for at in range(6):
        generator = torch.Generator().manual_seed(at)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator, dtype=torch.float64)
            other.grad = mine.grad.clone()
        optimiser.step(1e-3)
        torchs.step()

    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-12, rtol=0)
        assert mine.grad is None


def test_a_run_with_adam_is_resumed_at_every_step(drawn_root: Path, tmp_path: Path) -> None:
    words = [
        "optim.optimiser=adam",
        "optim.lr=0.001",
        "optim.epochs=0",
        "optim.steps=4",
        "method=cutmix_seg",
    ]

    whole = straight(drawn_root, tmp_path / "straight", words)

    assert in_pieces(drawn_root, tmp_path / "pieces", words, [1, 1]) == whole


def test_the_buffers_of_adam_are_part_of_the_state() -> None:
    config = tiny_config(Path("unused"), "optim.optimiser=adam")

    state = new_state(config, 6, Ranks(0, 1, torch.device("cpu")))

    assert isinstance(state.optimisers["student"], Adam)
    kinds = {name.partition(".")[0] for name in state.tensors()}
    assert kinds == {"network", "momentum", "squares", "steps"}


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_no_weight_decay_on_biases_and_batch_norm_can_be_asked_for(kind: str) -> None:
    config = tiny_config(
        Path("unused"), f"optim.optimiser={kind}", "optim.decays_all=false", "optim.weight_decay=1"
    )
    state = new_state(config, 6, Ranks(0, 1, torch.device("cpu")))
    optimiser = state.optimisers["student"]
    before = {name: value.detach().clone() for name, value in optimiser.parameters.items()}
    for value in optimiser.parameters.values():
        value.grad = torch.zeros_like(value)

    optimiser.step(0.1)

    for name, value in optimiser.parameters.items():
        assert torch.equal(value, before[name]) == (value.dim() == 1), name
