"""The networks of the methods' released codes: parameter counts, strides, and plain forms."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.tiny_config import tiny_config
from trainer.config.compose import compose
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.network.batch_norm import RankOrderedBatchNorm
from trainer.network.deeplab import DeepLabV3Plus, SummedPyramid
from trainer.network.heads import Head
from trainer.state import new_state

ST_PLUSPLUS = ("model.stem=conv7", "model.stride=8", "model.dilations=[12,24,36]")
U2PL = (
    "model.stride=8",
    "model.last_dilations=[4,8,16]",
    "model.dilations=[12,24,36]",
    "model.pyramid=three_by_three",
    "model.low_level_channels=256",
    "model.decoder_bias=true",
)
CPS = ("model.last_dilations=[2,4,8]", "model.pyramid=summed", "model.head_init=kaiming")
OURS = Path("unused")


def meta(*words: str, heads: tuple[Head, ...] = ()) -> DeepLabV3Plus:
    with torch.device("meta"):
        return DeepLabV3Plus(compose(words).model, 21, heads)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("backbone", "millions"), [("resnet50", 40.35), ("resnet101", 59.34)])
def test_the_network_of_st_plusplus_has_as_many_parameters(backbone: str, millions: float) -> None:
    assert round(count(meta(f"model={backbone}", *ST_PLUSPLUS)) / 1e6, 2) == millions


def test_the_network_of_u2pl_has_as_many_parameters() -> None:
    network = meta("model=resnet101", *U2PL, heads=(Head.embedding,))

    assert count(network.heads["embedding"]) == 1_836_800
    assert round(count(network.backbone) / 1e6, 2) == 42.62
    assert round((count(network) - count(network.backbone)) / 1e6, 2) == 21.84
    assert round(count(network) / 1e6, 2) == 64.46


def test_the_pyramid_of_cps_has_four_branches_and_one_that_is_added() -> None:
    branches = 2048 * 256 * (1 + 9 + 9 + 9) + 2 * 1024 + 1024 * 256
    pooled = 2048 * 256 + 2 * 256 + 256 * 256

    assert count(meta("model=resnet50", *CPS).head) == branches + pooled + 2 * 256


@pytest.mark.parametrize(
    ("words", "dilations"),
    [
        ((), {"layer3": [1] * 6, "layer4": [1, 2, 2]}),
        (ST_PLUSPLUS, {"layer3": [1, 2, 2, 2, 2, 2], "layer4": [2, 4, 4]}),
        (U2PL, {"layer3": [1, 2, 2, 2, 2, 2], "layer4": [4, 8, 16]}),
        (CPS, {"layer3": [1] * 6, "layer4": [2, 4, 8]}),
    ],
)
def test_each_block_has_the_dilation_of_its_code(
    words: tuple[str, ...], dilations: dict[str, list[int]]
) -> None:
    backbone = meta("model=resnet50", *words).backbone

    found = {
        name: [block.conv2.dilation[0] for block in getattr(backbone, name)] for name in dilations
    }
    assert found == dilations


@pytest.mark.parametrize(("stride", "sides"), [(16, (129, 33, 33)), (8, (129, 65, 65))])
def test_features_have_the_stride_of_the_network(stride: int, sides: tuple[int, ...]) -> None:
    network = meta("model=resnet50", f"model.stride={stride}").eval()

    features = network.backbone.features(torch.empty(1, 3, 513, 513, device="meta"))

    assert tuple(map.shape[-1] for map in features) == sides


def test_the_pyramid_of_cps_is_its_plain_form() -> None:
    torch.manual_seed(0)
    pyramid = SummedPyramid(5, 4, (1, 2, 3)).double()
    x = torch.randn(2, 5, 7, 9, dtype=torch.float64)

    found = pyramid(x, "bilinear")

    def normalised(maps: Tensor) -> Tensor:
        spread, mean = torch.var_mean(maps, (0, 2, 3), correction=0, keepdim=True)
        return functional.leaky_relu((maps - mean) / (spread + 1e-5).sqrt(), 0.01)

    def convolved(maps: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
        same = dilation * (weight.shape[-1] // 2)
        return functional.conv2d(maps, weight, padding=same, dilation=dilation)

    w = dict(pyramid.named_parameters())
    maps = [convolved(x, w["branches.0.weight"])]
    maps += [convolved(x, w[f"branches.{i}.weight"], dilation=i) for i in (1, 2, 3)]
    pooled = convolved(x.mean((2, 3), keepdim=True), w["pooled.0.weight"])
    added = convolved(normalised(pooled), w["pooled.3.weight"])
    expected = normalised(convolved(normalised(torch.cat(maps, 1)), w["project.2.weight"]) + added)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def new_network(config: TrainConfig) -> DeepLabV3Plus:
    return new_state(config, 6, Ranks(0, 1, torch.device("cpu"))).networks["student"]


def test_kaiming_heads_leave_the_backbone_as_it_is() -> None:
    uniform = new_network(tiny_config(OURS)).state_dict()
    kaiming = new_network(tiny_config(OURS, "model.head_init=kaiming")).state_dict()

    moved = {name for name, value in uniform.items() if not torch.equal(kaiming[name], value)}
    convolutions = {name for name, value in uniform.items() if value.dim() == 4}
    assert moved - {"classifier.bias"} == {n for n in convolutions if "backbone" not in n}
    weight = kaiming["fuse.0.weight"]
    assert weight.std() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.1)


def test_frozen_batch_norm_of_the_backbone_keeps_its_statistics() -> None:
    frozen = new_network(tiny_config(OURS, "model.frozen_norm=true"))
    before = {name: value.clone() for name, value in frozen.named_buffers()}

    frozen.train()(torch.randn(2, 3, 33, 33)).sum().backward()

    norms = {n: m for n, m in frozen.named_modules() if isinstance(m, RankOrderedBatchNorm)}
    assert {name.startswith("backbone") for name, m in norms.items() if not m.training} == {True}
    moved = {name for name, value in frozen.named_buffers() if not torch.equal(before[name], value)}
    assert moved
    assert not any(name.startswith("backbone") for name in moved)
    assert all(p.grad is not None for p in frozen.parameters())  # scales and shifts still train


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("model.stride=4", "it is 8 or 16"),
        ("model.last_dilations=[2,4]", "each of the 3 blocks"),
        ("model.last_dilations=[0,1,2]", "each of the 3 blocks"),
    ],
)
def test_shapes_that_there_are_not_are_refused(word: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        compose(["model=resnet50", word])
