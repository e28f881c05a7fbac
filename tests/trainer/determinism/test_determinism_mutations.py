"""Well-known ways to lose determinism, done on purpose: the checks must notice each of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches
from tests.support.process_groups import run_ranks
from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import final_digest, stop_after
from trainer.determinism import digest
from trainer.distributed import Ranks
from trainer.run import train
from trainer.state import TrainState

pytestmark = pytest.mark.long


def straight_and_resumed(hooked: bool) -> tuple[list[str], list[str]]:
    """Digests after each of four steps, without a restart and with one after two."""
    return ddp_run(4, None, hooked), ddp_run(4, 2, hooked)


def ddp_run(steps: int, resume_at: int | None, hooked: bool) -> list[str]:
    """Digests after each step of a small network under stock DDP or under our sum."""
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    ranks = Ranks(rank, size, torch.device("cpu"))
    torch.manual_seed(0)
    network: nn.Module = nn.Sequential(
        *(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(8)), nn.Linear(64, 4)
    )
    wrapped = network if hooked else nn.parallel.DistributedDataParallel(network)
    found = []
    for step in range(steps):
        if step == resume_at and not hooked:  # what a restart does: new buckets, same weights
            wrapped = nn.parallel.DistributedDataParallel(network)
        generator = torch.Generator().manual_seed(100 * step + rank)
        x = torch.randn(16, 64, generator=generator)
        wrapped.zero_grad()
        wrapped(x).square().sum().backward()
        if hooked:
            ranks.sum_gradients(network.parameters())
        with torch.no_grad():
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter -= 0.01 * parameter.grad / (size if hooked else 1)
        found.append(digest(dict(network.state_dict())))
    return found


@pytest.mark.parametrize("hooked", [False, True])
def test_stock_ddp_loses_bits_at_a_restart_with_three_ranks_and_ours_does_not(hooked: bool) -> None:
    straight, resumed = run_ranks(straight_and_resumed, 3, hooked)[0]

    assert len(set(straight)) == 4
    assert (straight == resumed) is hooked


def test_a_forgotten_momentum_is_noticed(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(drawn_root, "loss=kl")
    train(config, tmp_path / "straight")
    whole = TrainState.unpack

    def forgetful(state: TrainState, packed: dict[str, Any]) -> None:
        whole(state, packed)
        for buffer in state.optimisers["student"].momentum.values():
            buffer.zero_()

    monkeypatch.setattr(TrainState, "unpack", forgetful)
    train(config, tmp_path / "resumed", should_stop=stop_after(5))
    train(config, tmp_path / "resumed")

    assert final_digest(tmp_path / "resumed") != final_digest(tmp_path / "straight")


def test_forgotten_batch_statistics_are_noticed(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(drawn_root, "loss=kl")
    train(config, tmp_path / "straight")
    whole = TrainState.unpack

    def forgetful(state: TrainState, packed: dict[str, Any]) -> None:
        whole(state, packed)
        for name, buffer in state.networks["student"].named_buffers():
            if name.endswith("num_batches_tracked"):
                buffer.zero_()

    monkeypatch.setattr(TrainState, "unpack", forgetful)
    train(config, tmp_path / "resumed", should_stop=stop_after(5))
    train(config, tmp_path / "resumed")

    assert final_digest(tmp_path / "resumed") != final_digest(tmp_path / "straight")


def test_a_forgotten_average_is_noticed(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(drawn_root, "loss=kl", "method.teacher=ema", "optim.epochs=2")
    train(config, tmp_path / "straight")
    whole = TrainState.unpack

    def forgetful(state: TrainState, packed: dict[str, Any]) -> None:
        whole(state, packed)
        state.networks["ema"].load_state_dict(state.networks["student"].state_dict())

    monkeypatch.setattr(TrainState, "unpack", forgetful)
    train(config, tmp_path / "resumed", should_stop=stop_after(4))
    train(config, tmp_path / "resumed")

    assert final_digest(tmp_path / "resumed") != final_digest(tmp_path / "straight")


def test_other_threads_give_other_bits() -> None:
    # Why threads are pinned and guarded: a large convolution's gradient is summed in pieces.
    def gradient(threads: int) -> str:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4, 32, 64, 64, generator=generator)
        layer = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer(x).square().sum().backward()
        torch.set_num_threads(before)
        assert layer.weight.grad is not None
        return digest({"weight": layer.weight.grad})

    assert gradient(1) == gradient(1)
    assert gradient(1) != gradient(2)


def test_augmentation_from_the_global_generator_would_be_noticed(drawn_root: Path) -> None:
    config = tiny_config(drawn_root)
    dataset = open_dataset(config.data)

    def run(start: int, noisy: bool) -> dict[int, str]:
        plan = BatchPlan(batch=4, start=start, stop=6, num_channel_bits=8)
        torch.manual_seed(start)
        found = {}
        steps = batches(dataset, config.data, seed=1, plan=plan)
        for step, (labelled, _) in enumerate(steps, start):
            images = labelled.images
            if noisy:
                images = images.flip(-1) if torch.rand(()) < 0.5 else images
            found[step] = digest({"images": images})
        return found

    for noisy in (False, True):
        straight = run(0, noisy)
        resumed = [run(start, noisy) for start in range(1, 6)]
        same = all(straight[step] == value for part in resumed for step, value in part.items())
        assert same is not noisy


def per_rank_mean(root: str, correct: bool) -> float:
    """A mean over real pixels of six steps, with global or with per-rank denominators."""
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    ranks = Ranks(rank, size, torch.device("cpu"))
    config = tiny_config(Path(root))
    dataset = open_dataset(config.data)
    plan = BatchPlan(batch=4, rank=rank, world_size=size, stop=6, num_channel_bits=8)
    total = 0.0
    for labelled, _ in batches(dataset, config.data, seed=3, plan=plan):
        real = labelled.masks != 255
        brightness = torch.where(real, labelled.images.double().mean(1), 0.0).sum()
        if correct:
            total += float(ranks.sum(brightness) / ranks.sum(real.sum()))
        else:
            total += float(ranks.sum(brightness / real.sum()) / size)
    return total


@pytest.mark.parametrize("correct", [True, False])
def test_denominators_per_rank_would_change_the_objective(drawn_root: Path, correct: bool) -> None:
    values = [run_ranks(per_rank_mean, size, str(drawn_root), correct)[0] for size in (1, 2)]

    assert (values[0] == pytest.approx(values[1], rel=1e-9)) is correct
