"""Each method against its transcription, on the same batches, to the last digits of fp32."""

from pathlib import Path

import pytest
import torch

from benchmarks import official_step
from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches
from tests.support.tiny_config import tiny_config
from trainer.config.compose import compose
from trainer.config.schema import PixelDistance, TrainConfig
from trainer.distributed import Ranks
from trainer.methods.interface import MethodContext, StepInput, new_method
from trainer.network.deeplab import DeepLabV3Plus
from trainer.objective import InterPixelTerm
from trainer.run import train
from trainer.schedule import steps_per_epoch
from trainer.state import new_state

ALONE = Ranks(0, 1, torch.device("cpu"))


def transcribed(config: TrainConfig) -> DeepLabV3Plus:
    """The network after the whole run, trained by the transcription."""
    dataset = open_dataset(config.data)
    split = dataset.split
    per_epoch = steps_per_epoch(
        config, num_labelled=len(split.labelled), num_unlabelled=len(split.unlabelled)
    )
    total = per_epoch * config.optim.epochs
    network = new_state(config, dataset.num_classes, ALONE).networks["student"]
    plan = BatchPlan(
        batch=config.batch,
        stop=total,
        num_channel_bits=network.num_channel_bits,
        unlabelled=config.method.facts.needs_unlabelled,
    )
    setting = {
        "lr": config.lr,
        "total": total,
        "lag": config.optim.lag,
        "head": config.optim.head_lr_factor,
        "algorithm": config.method.algorithm,
        "confidence": config.method.confidence,
        "distance": config.loss.distance.value,
        "threshold": config.loss.threshold,
        "warmup": config.loss.warmup_epochs * per_epoch,
    }
    official_step.train(
        network, list(batches(dataset, config.data, seed=config.seed, plan=plan)), setting
    )
    return network


@pytest.mark.parametrize(
    ("method", "loss"),
    [
        ("supervised_star", "none"),
        ("fixmatch_star", "none"),
        ("fixmatch_star", "kl"),
        ("unimatch_star", "none"),
        ("unimatch_star", "kl"),
        ("unimatch_star", "cr"),
        ("unimatch", "kl_no_warmup"),
        ("fixmatch", "none"),
    ],
)
def test_a_run_gives_the_weights_of_the_transcription(
    drawn_root: Path, tmp_path: Path, method: str, loss: str
) -> None:
    config = tiny_config(
        drawn_root,
        f"method={method}",
        f"loss={loss}",
        "optim.head_lr_factor=10",
        "optim.lr=0.001",
        "loss.threshold=0.1",
        # Three steps: later a pixel at the threshold may fall on the other side of it by rounding.
        "optim.epochs=1",
    )
    oracle = transcribed(config)

    summary = train(config, tmp_path)

    path = tmp_path / "checkpoints" / f"step-{summary.steps:08d}.pt"
    tensors = torch.load(path, weights_only=True)["tensors"]
    start = new_state(config, 6, ALONE).weights()
    moved = 0.0
    for name, expected in oracle.state_dict().items():
        found = tensors[f"network.student.{name}"]
        assert (found - expected).abs().max().item() <= 1e-5, name
        moved = max(moved, (found.float() - start[name].float()).abs().max().item())
    assert moved > 1e-3


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    ("method", "loss"),
    [("fixmatch", "kl"), ("unimatch_star", "kl"), ("unimatch_star", "cr")],
)
def test_in_double_precision_7_epochs_at_full_rate_give_the_weights_of_the_transcription(
    drawn_root: Path, tmp_path: Path, method: str, loss: str
) -> None:
    # In float32 a rounding error grows up to tenfold a step, so that a tolerance leaves room for a
    # small mistake. Here it does not: the two ways stay within 3e-12 while weights move by 0.1.
    config = tiny_config(drawn_root, f"method={method}", f"loss={loss}", "optim.epochs=7")
    oracle = transcribed(config).state_dict()

    summary = train(config, tmp_path)

    path = tmp_path / "checkpoints" / f"step-{summary.steps:08d}.pt"
    tensors = torch.load(path, weights_only=True)["tensors"]
    start = new_state(config, 6, ALONE).weights()
    moved = 0.0
    for name, expected in oracle.items():
        assert (tensors[f"network.student.{name}"] - expected).abs().max().item() <= 1e-9, name
        moved = max(moved, (expected - start[name]).abs().max().item())
    assert summary.steps == (14 if method == "fixmatch" else 21)
    assert moved > 0.1


def one_step(config: TrainConfig) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Loss, terms and number of pairs of step 0."""
    dataset = open_dataset(config.data)
    state = new_state(config, dataset.num_classes, ALONE)
    plan = BatchPlan(
        batch=config.batch, stop=1, num_channel_bits=state.networks["student"].num_channel_bits
    )
    labelled, unlabelled = next(iter(batches(dataset, config.data, seed=1, plan=plan)))
    method = new_method(MethodContext(config, ALONE))
    result = method.step(StepInput(state.networks, state.memory, labelled, unlabelled))
    if config.loss.distance is not PixelDistance.none:
        term = InterPixelTerm(config.loss, config.batch, ALONE)(result.pairs)
        return result.loss + term, {**result.terms, "ipix": term.detach()}, len(result.pairs)
    return result.loss, result.terms, len(result.pairs)


@pytest.mark.parametrize(
    ("overrides", "num_pairs"),
    [
        (["loss=none"], 0),
        (["loss=kl"], 2),
        (["loss=kl", "loss.views=[s1]"], 1),
        (["loss=kl", "loss.views=[s1,s2,fp]"], 3),
        (["loss=kl", "loss.on_labeled=true"], 3),
        (["loss=kl", "loss.cutmix=uncut"], 2),
        (["loss=kl", "loss.cutmix=outside_only"], 2),
        (["loss=cr", "loss.cutmix=two_regions"], 2),
        (["loss=kl", "method.teacher_mode=eval"], 2),
        (["loss=kl", "method.teacher=ema"], 2),
        (["loss=kl", "method.teacher=ema", "method.pseudo_labels=teacher"], 2),
        (["loss=kl", "method=fixmatch"], 1),
        (["loss=kl", "optim.criterion=ohem", "optim.ohem_min_kept_per_image=50"], 2),
        (["loss=kl", "data.mix=other"], 2),
        (["loss=kl", "data.mix=batch_roll"], 2),
    ],
)
def test_every_option_gives_a_step_with_a_gradient(
    drawn_root: Path, overrides: list[str], num_pairs: int
) -> None:
    config = tiny_config(drawn_root, *overrides)

    loss, terms, found = one_step(config)
    loss.backward()

    assert found == num_pairs
    assert loss.isfinite()
    assert terms["loss_labelled"] > 0


def test_the_teacher_is_a_constant(drawn_root: Path) -> None:
    config = tiny_config(drawn_root, "loss=kl")
    dataset = open_dataset(config.data)
    state = new_state(config, dataset.num_classes, ALONE)
    plan = BatchPlan(batch=4, stop=1, num_channel_bits=state.networks["student"].num_channel_bits)
    labelled, unlabelled = next(iter(batches(dataset, config.data, seed=1, plan=plan)))

    method = new_method(MethodContext(config, ALONE))
    result = method.step(StepInput(state.networks, state.memory, labelled, unlabelled))

    assert all(not pair.teacher.requires_grad for pair in result.pairs)
    assert all(pair.student.requires_grad for pair in result.pairs)
    assert state.networks["student"].training


@pytest.fixture(scope="module")
def calm_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of ResNet-50 weights whose residual branches are small, as after training.

    Drawn weights alone make activations of a hundred: a last digit then grows tenfold a step.
    """
    drawn = (
        new_state(compose(["model=resnet50"]), 2, ALONE).networks["student"].backbone.state_dict()
    )
    calm = {k: v * 0.1 if k.endswith("bn3.weight") else v for k, v in drawn.items()}
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(calm, path)
    return path


@pytest.mark.long
def test_four_steps_of_resnet_50_give_the_weights_of_the_transcription(
    tmp_path: Path, calm_backbone: Path
) -> None:
    """In fp32, with every block of ResNet-50 at its own width.

    Rounding grows with every step, the faster the higher the rate. After four steps at 2e-4 the two
    ways are within 5e-7 while the head moves by 1.8e-3 and the backbone by 4e-4, which is 180 and
    40 times the tolerance; the runs in double precision above say more of later steps.
    """
    config = tiny_config(
        tmp_path / "data",
        "model=resnet50",
        "model.width=64",
        "model.head_channels=64",
        "model.low_level_channels=48",
        "model.dilations=[6,12,18]",
        "model.init=imagenet",
        f"run.weights={calm_backbone}",
        "loss=kl",
        # Every pixel counts: one at a threshold may fall on its other side by rounding.
        "method.confidence=0",
        "loss.threshold=0.1",  # below 1/6, the least that the top of six classes can have
        "data.drawn.num_train=12",
        "data.drawn.num_val=1",
        "data.split=n4",
        "optim.epochs=1",
        "optim.batch=2",
        "optim.lr=0.0002",
        "optim.head_lr_factor=10",
    )
    oracle = transcribed(config)

    summary = train(config, tmp_path / "run")

    assert summary.steps == 4
    path = tmp_path / "run" / "checkpoints" / "step-00000004.pt"
    tensors = torch.load(path, weights_only=True)["tensors"]
    start = new_state(config, 6, ALONE).networks["student"].state_dict()
    moved = {"backbone": 0.0, "head": 0.0}
    for name, expected in oracle.named_parameters():
        assert (tensors[f"network.student.{name}"] - expected).abs().max().item() <= 1e-5, name
        part = "backbone" if "backbone" in name else "head"
        moved[part] = max(moved[part], (expected - start[name]).abs().max().item())
    assert moved["head"] > 100 * 1e-5
    assert moved["backbone"] > 30 * 1e-5
