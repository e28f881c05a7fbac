"""Enlarging against torch's own interpolation."""

import pytest
import torch
from torch.nn import functional

from trainer.config.compose import compose
from trainer.distributed import Ranks
from trainer.network.deeplab import DeepLabV3Plus, upsample
from trainer.state import new_state

SIZES = [((21, 21), (81, 81)), ((3, 5), (7, 16)), ((1, 4), (6, 9)), ((81, 81), (321, 321))]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_bilinear_is_align_corners_bilinear(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    x = torch.randn(2, 3, *source, dtype=torch.float64, requires_grad=True)
    expected = functional.interpolate(x, size=target, mode="bilinear", align_corners=True)
    weight = torch.randn_like(expected)
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), x)

    found = upsample(x, target, "bilinear")
    (found_grad,) = torch.autograd.grad((found * weight).sum(), x)

    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(found_grad, expected_grad, atol=1e-10, rtol=0)


def test_nearest_is_torch_nearest() -> None:
    x = torch.randn(1, 2, 21, 21)

    expected = functional.interpolate(x, size=(81, 81), mode="nearest")

    assert torch.equal(upsample(x, (81, 81), "nearest"), expected)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_single_pixel_is_copied(mode: str) -> None:
    x = torch.randn(2, 3, 1, 1)

    assert torch.equal(upsample(x, (4, 5), mode), x.expand(2, 3, 4, 5))  # type: ignore[arg-type]


def test_the_same_size_is_left_alone() -> None:
    x = torch.randn(1, 1, 4, 4)

    assert upsample(x, (4, 4), "bilinear") is x


def meta_network(backbone: str, num_classes: int) -> DeepLabV3Plus:
    with torch.device("meta"):
        return DeepLabV3Plus(compose([f"model={backbone}"]).model, num_classes).eval()


@pytest.mark.parametrize(
    ("backbone", "num_classes", "expected"),
    [
        ("resnet50", 21, 40_475_957),
        ("resnet50", 19, 40_475_443),
        ("resnet101", 21, 59_468_085),
        ("resnet101", 19, 59_467_571),
    ],
)
def test_the_parameter_counts_are_those_of_the_official_network(
    backbone: str, num_classes: int, expected: int
) -> None:
    network = meta_network(backbone, num_classes)

    assert sum(p.numel() for p in network.parameters()) == expected


def test_backbone_and_head_have_their_share() -> None:
    network = meta_network("resnet50", 21)

    head = sum(p.numel() for n, p in network.named_parameters() if "backbone" not in n)

    assert sum(p.numel() for p in network.backbone.parameters()) == 23_631_808
    assert head == 16_844_149
    assert sum(p.numel() for p in meta_network("resnet101", 2).backbone.parameters()) == 42_623_936


@pytest.mark.parametrize(("crop", "low", "high"), [(321, 81, 21), (513, 129, 33), (801, 201, 51)])
def test_the_feature_sizes_are_those_of_the_official_network(
    crop: int, low: int, high: int
) -> None:
    network = meta_network("resnet50", 21)

    c1, c4 = network.backbone(torch.empty(1, 3, crop, crop, device="meta"))

    assert c1.shape == (1, 256, low, low)
    assert c4.shape == (1, 2048, high, high)
    assert network(torch.empty(1, 3, crop, crop, device="meta")).shape == (1, 21, crop, crop)


def test_the_stem_has_the_key_names_of_timm() -> None:
    keys = set(meta_network("resnet50", 21).backbone.state_dict())

    assert {f"conv1.{i}.weight" for i in (0, 1, 3, 4, 6)} <= keys
    assert {"bn1.weight", "layer1.0.downsample.1.running_var", "layer4.2.conv3.weight"} <= keys


def test_only_the_later_blocks_of_the_last_stage_are_dilated() -> None:
    stages = meta_network("resnet50", 21).backbone

    assert [block.conv2.dilation for block in stages.layer4] == [(1, 1), (2, 2), (2, 2)]
    assert all(block.conv2.dilation == (1, 1) for block in stages.layer3)
    assert stages.layer4[0].conv2.stride == (1, 1)


def test_convolutions_have_no_bias_but_the_classifier() -> None:
    network = meta_network("resnet50", 21)

    biased = [
        n
        for n, m in network.named_modules()
        if getattr(m, "bias", None) is not None and isinstance(m, torch.nn.Conv2d)
    ]

    assert biased == ["classifier"]


def test_the_feature_dropout_doubles_what_it_keeps() -> None:
    network = DeepLabV3Plus(compose(["model=resnet14_w8"]).model, 3).eval()
    images = torch.randn(2, 3, 32, 32)
    everything = torch.ones(2, network.num_channel_bits, dtype=torch.bool)
    low, high = network.backbone(images)

    clean, dropped = network.forward_perturbed(images, everything)

    torch.testing.assert_close(clean, network(images))
    torch.testing.assert_close(dropped, network.decode(2 * low, 2 * high, images.shape[-2:]))


def test_the_same_seed_draws_the_same_weights_whatever_torch_drew_before() -> None:
    config, ranks = compose(["model=resnet14_w8"]), Ranks(0, 1, torch.device("cpu"))
    first = new_state(config, 6, ranks)
    torch.manual_seed(99)
    torch.randn(7)

    assert new_state(config, 6, ranks).digest() == first.digest()
    assert new_state(compose(["model=resnet14_w8", "seed=1"]), 6, ranks).digest() != first.digest()


def test_drawn_weights_have_the_spread_of_their_rule() -> None:
    config, ranks = compose(["model=resnet14_w16"]), Ranks(0, 1, torch.device("cpu"))
    student = new_state(config, 6, ranks).networks["student"]
    inside = student.backbone.layer2[0].conv2.weight  # Kaiming normal, fan out 32 * 9
    outside = student.fuse[3].weight  # uniform in +-1 / sqrt(fan in 64 * 9)

    assert inside.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.03)
    assert abs(inside.mean().item()) < 0.002
    assert outside.abs().max().item() <= 1 / 24
    assert outside.std().item() == pytest.approx(1 / 24 / 3**0.5, rel=0.03)
