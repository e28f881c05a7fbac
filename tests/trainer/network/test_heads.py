"""Heads beside the logits: they change nothing else, and are trained, saved and deployed."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import in_pieces, straight
from trainer.config.schema import Memory
from trainer.inference import load_trained
from trainer.method_registry import METHODS, MethodFacts
from trainer.methods import consistency
from trainer.methods.interface import Method, MethodContext, NetworkSpec, StepInput, StepResult
from trainer.network.deeplab import DeepLabV3Plus, normalise
from trainer.network.heads import Head
from trainer.network.init import init_weights
from trainer.network.recompute import BlockRunner

ALL = tuple(Head)
CONFIG = tiny_config(Path("unused"))


def network_with(*heads: Head) -> DeepLabV3Plus:
    network = DeepLabV3Plus(CONFIG.model, 6, heads)
    init_weights(network, CONFIG)
    return network


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 33, 41, generator=torch.Generator().manual_seed(0))


def test_heads_leave_the_first_weights_and_the_logits_as_they_are(images: torch.Tensor) -> None:
    plain, full = network_with(), network_with(*ALL)
    own = {name: value for name, value in full.state_dict().items() if "heads." in name}

    assert {name.split(".")[1] for name in own} == {"embedding", "auxiliary", "projection"}
    assert set(full.state_dict()) == set(plain.state_dict()) | set(own)
    assert all(torch.equal(full.state_dict()[name], v) for name, v in plain.state_dict().items())
    assert torch.equal(full(images), plain(images))
    assert torch.equal(full.outputs(images).logits, plain(images))
    again = network_with(*ALL).state_dict()  # drawn from the seed, not from torch's generator
    assert all(torch.equal(again[name], value) for name, value in own.items() if value.dim() == 4)


def test_each_head_gives_its_map_and_an_absent_one_none(images: torch.Tensor) -> None:
    full, plain = network_with(*ALL).outputs(images), network_with().outputs(images)

    assert full.logits.shape == full.auxiliary.shape == (2, 6, 33, 41)
    assert full.fused.shape == full.embedding.shape == (2, 8, 9, 11)
    assert full.projection.shape == (2, 4, 4, 5)
    assert full.coarse.shape == (2, 6, 4, 5)
    assert torch.allclose(full.projection.norm(dim=1), torch.ones(2, 4, 5))
    assert plain.embedding is plain.auxiliary is plain.projection is plain.coarse is None


def test_maps_of_mirrored_images_are_mirrored_back_to_the_last_cell(images: torch.Tensor) -> None:
    network, images = network_with(*ALL).eval(), images[..., :33]
    with torch.no_grad():
        for weights in network.parameters():  # what sees no difference of left and right
            weights.copy_((weights + weights.flip(-1)) / 2 if weights.dim() == 4 else weights)
    mirrored = torch.tensor([False, True])

    plain = network.outputs(images)
    turned = network.outputs(torch.stack([images[0], images[1].flip(-1)]), mirrored)

    assert plain.fused.shape[-1] == 9  # odd: mirroring after pooling would leave half a cell
    for name in ("projection", "coarse"):
        assert torch.allclose(getattr(turned, name), getattr(plain, name), atol=1e-6)
    assert not torch.allclose(plain.coarse[1], plain.coarse[1].flip(-1), atol=1e-4)
    assert torch.allclose(turned.fused[1].flip(-1), plain.fused[1], atol=1e-5)  # as it comes


def test_the_decoder_can_be_called_apart_from_the_encoder(images: torch.Tensor) -> None:
    network = network_with()

    joined = network.encode(images)

    assert joined.shape == (2, 12, 9, 11)  # skip and context
    assert torch.equal(network.classify(joined, images.shape[-2:]), network(images))


def test_heads_are_recomputed_to_the_same_gradients(images: torch.Tensor) -> None:
    gradients = []
    for memory in (Memory.full, Memory.recompute):
        network = network_with(*ALL)
        network.backbone.run = BlockRunner(memory)
        given = network.outputs(images)
        parts = (given.logits, given.embedding, given.auxiliary, given.projection, given.coarse)
        sum(part.square().mean() for part in parts).backward()
        gradients.append({name: value.grad for name, value in network.named_parameters()})

    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items())


@dataclass(frozen=True)
class WithAuxiliary(Method):
    """Supervised training with an auxiliary loss; one head never has a gradient."""

    context: MethodContext

    def networks(self) -> dict[str, NetworkSpec]:
        student = NetworkSpec(heads=(Head.auxiliary, Head.embedding))
        return {
            "student": student,
            "teacher": replace(student, is_trained=False, copy_of="student"),
        }

    def deployed(self) -> tuple[str, ...]:
        return ("student", "teacher")

    def step(self, given: StepInput) -> StepResult:
        made = given.student.outputs(normalise(given.labelled.images))
        assert made.auxiliary is not None
        loss = consistency.labelled_term(self.context, made.logits, given.labelled.masks)
        loss = loss + 0.4 * consistency.labelled_term(
            self.context, made.auxiliary, given.labelled.masks
        )
        return StepResult(loss, (), {"loss_labelled": loss.detach()})


def test_a_method_trains_saves_and_deploys_networks_with_heads(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = MethodFacts(f"{__name__}.WithAuxiliary", passes=1.0, needs_unlabelled=False)
    monkeypatch.setitem(METHODS, "with_auxiliary", facts)
    overrides = ["method.algorithm=with_auxiliary", "optim.epochs=2", "method.match_iters=true"]

    expected = straight(drawn_root, tmp_path / "straight", overrides)

    assert in_pieces(drawn_root, tmp_path / "pieces", overrides, [2, 1]) == expected
    weights = load_trained(tmp_path / "straight").network.state_dict()
    first, teacher = (f"networks.{name}.heads.{{}}.3.weight" for name in ("student", "teacher"))
    assert not torch.equal(weights[first.format("auxiliary")], weights[teacher.format("auxiliary")])
    assert torch.equal(weights[first.format("embedding")], weights[teacher.format("embedding")])
