"""The state of a run between two steps: networks, momentum, the method's memory, scores.

A checkpoint is exactly this state. All else (learning rate, batches, dropout) is computed from the
step and the seed.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from datasets.loading.hint import Hint
from trainer.config.schema import Precision, TrainConfig
from trainer.determinism import digest
from trainer.distributed import Ranks
from trainer.evaluate import Score
from trainer.methods.interface import MethodContext, new_method
from trainer.network.batch_norm import set_ranks
from trainer.network.deeplab import DeepLabV3Plus, mean_of
from trainer.network.init import init_weights
from trainer.network.recompute import BlockRunner
from trainer.optimisers.adam import Optimiser, new_optimiser


@dataclass
class TrainState:
    """Networks, momentum, the method's memory, and the scores so far.

    Attributes:
        networks: by the names of the method.
        optimisers: of the networks that are trained, with their momentum.
        memory: by the names of the method, equal on all ranks.
        hint: of this epoch, for the loader; None of a method without.
        deployed: names of the networks that are scored and exported.
        step: optimiser steps done.
        scores: by epoch, counted from 1.
        seconds: spent in training and evaluation, over all attempts.
        pretrained_sha256: of the file the backbones started from.
        products: digest of what was made before a stage, by the stages so far.
    """

    networks: dict[str, DeepLabV3Plus]
    optimisers: dict[str, Optimiser]
    memory: dict[str, Tensor] = field(default_factory=dict)
    hint: Hint | None = None
    deployed: tuple[str, ...] = ("student",)
    step: int = 0
    scores: dict[int, Score] = field(default_factory=dict)
    seconds: float = 0.0
    pretrained_sha256: str | None = None
    products: dict[str, str] = field(default_factory=dict)

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the highest mIoU, the first of equal ones; None before any evaluation."""
        if not self.scores:
            return None
        return max(self.scores, key=lambda epoch: (self.scores[epoch].miou_percent, -epoch))

    def add_score(self, epoch: int, score: Score) -> None:
        """Add an epoch's score; only the best and the last epoch keep their confusion matrix."""
        self.scores[epoch] = score
        for other, old in self.scores.items():
            if other not in (epoch, self.best_epoch):
                self.scores[other] = replace(old, confusion=())

    def deployed_network(self) -> nn.Module:
        """The network that is scored and exported, or the mean of several."""
        return mean_of({name: self.networks[name] for name in self.deployed})

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of the network that is scored and exported."""
        return dict(self.deployed_network().state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on."""
        tensors = {
            f"network.{name}.{inner}": value
            for name, network in self.networks.items()
            for inner, value in network.state_dict().items()
        }
        tensors |= {
            f"{kind}.{name}.{inner}": value
            for name, optimiser in self.optimisers.items()
            for kind, values in optimiser.buffers.items()
            for inner, value in values.items()
        }
        tensors |= {f"memory.{name}": value for name, value in self.memory.items()}
        hint = {} if self.hint is None else self.hint.tensors()
        return tensors | {f"hint.{name}": value for name, value in hint.items()}

    def digest(self) -> str:
        """Sha256 of every tensor of the state."""
        return digest(self.tensors())

    def pack(self) -> dict[str, Any]:
        """Tensors and plain values, loadable with `weights_only=True`."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "pretrained_sha256": self.pretrained_sha256,
            "scores": {
                epoch: (score.miou_percent, score.iou_percent, score.confusion)
                for epoch, score in self.scores.items()
            },
            "tensors": self.tensors(),
            **({"products": dict(self.products)} if self.products else {}),
        }

    def unpack(self, packed: dict[str, Any]) -> None:
        """Restore the state from what `pack` returned."""
        self.step, self.seconds = packed["step"], packed["seconds"]
        self.pretrained_sha256 = packed["pretrained_sha256"]
        self.scores = {epoch: Score(*values) for epoch, values in packed["scores"].items()}
        self.products = dict(packed.get("products", {}))
        self._fill(packed["tensors"])

    def begin_again(self, fresh: "TrainState", kept: Mapping[str, nn.Module]) -> None:
        """Begin a stage: first weights, no momentum, first memory, and no score of this stage.

        Args:
            fresh: what `new_state` gives.
            kept: networks as which some begin, by the names of these.
        """
        self._fill(fresh.tensors())
        for name, network in kept.items():
            self.networks[name].load_state_dict(network.state_dict())
        self.scores = {}

    @torch.no_grad()
    def _fill(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])


def new_state(
    config: TrainConfig,
    num_classes: int,
    ranks: Ranks,
    *,
    fresh: bool = True,
    num_unlabelled: int = 0,
) -> TrainState:
    """The state before step 0, the same on every rank.

    Args:
        config: the run.
        num_classes: of its dataset.
        ranks: those that train together.
        fresh: False when a checkpoint is unpacked next, so no first weights are needed.
        num_unlabelled: images of the unlabelled list.
    """
    method = new_method(MethodContext(config, ranks, num_unlabelled))
    specs, deployed = method.networks(), method.deployed()
    state = TrainState({}, {}, deployed=deployed)
    for name, spec in specs.items():
        network = DeepLabV3Plus(config.model, num_classes, spec.heads)
        if spec.copy_of:
            network.load_state_dict(state.networks[spec.copy_of].state_dict())
        elif fresh:
            keys = {"head_key": spec.head_key, "backbone_key": spec.backbone_key}
            pretrained = init_weights(network, config, **keys)
            if pretrained is not None:
                state.pretrained_sha256 = pretrained.sha256
        network = network.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        set_ranks(network, ranks)
        state.networks[name] = network.train(spec.is_trained).requires_grad_(spec.is_trained)
        if spec.is_trained:
            decays_all = spec.decays_all and config.optim.decays_all
            state.optimisers[name] = new_optimiser(network, config.optim, decays_all=decays_all)
            network.backbone.run = BlockRunner(config.run.memory)
    state.memory = {name: value.to(ranks.device) for name, value in method.memory().items()}
    state.hint = method.hint(state.memory)
    return state


def empty_networks(config: TrainConfig, num_classes: int) -> dict[str, DeepLabV3Plus]:
    """The networks that are scored and exported, by name, for weights that are read from a file."""
    method = new_method(MethodContext(config, Ranks(0, 1, torch.device("cpu"))))
    specs = method.networks()
    return {
        name: DeepLabV3Plus(config.model, num_classes, specs[name].heads)
        for name in method.deployed()
    }


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a training forward runs: bfloat16 autocast, or none."""
    if precision is Precision.bf16:
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
