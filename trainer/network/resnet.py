"""ResNet with bottlenecks at output stride 8 or 16, key names as torchvision and timm use them."""

from torch import Tensor, nn

from trainer.config.schema import ModelConfig, Stem
from trainer.network.backbone import Backbone
from trainer.network.batch_norm import RankOrderedBatchNorm

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with the stride on the 3x3 (He et al. 2016, as torchvision places it)."""

    def __init__(self, channels: int, width: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = RankOrderedBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = RankOrderedBatchNorm(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = RankOrderedBatchNorm(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, RankOrderedBatchNorm(out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, 4 width, h / stride, w / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)  # type: ignore[no-any-return]


class ResNet(Backbone):
    """Backbone of DeepLabV3+; gives the features of its first and last stage.

    A stage that keeps its resolution has the dilation of the stage before in its first block and
    twice that in the others, as torchvision has it: 1 and 2 in the last stage at stride 16 (the
    UniMatch code), 2 and 4 at stride 8. `model.last_dilations` names others (multi-grid).
    """

    not_used = ("fc.",)
    other_file = (
        "The stem may differ: model.stem=deep64 fits timm's resnet50s and UniMatch's files, "
        "model.stem=conv7 torchvision's."
    )

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        stem = 2 * width if config.stem is Stem.deep64 else width
        self.conv1 = _deep_stem(width) if config.stem is Stem.deep64 else _plain_stem(width)
        self.bn1 = RankOrderedBatchNorm(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        sizes = [width * 2**stage for stage in range(4)]
        self.low_channels = sizes[0] * EXPANSION
        self.middle_channels = sizes[2] * EXPANSION
        self.high_channels = sizes[3] * EXPANSION
        first, second, third, fourth = config.blocks
        # Of a stage's first block and of its others.
        middle, last = ((1, 2), (2, 4)) if config.stride == 8 else ((1, 1), (1, 2))
        dilations = config.last_dilations[:fourth] or _dilations(fourth, last)
        self.layer1 = _stage(stem, sizes[0], (1,) * first, stride=1)
        self.layer2 = _stage(sizes[0] * EXPANSION, sizes[1], (1,) * second, stride=2)
        self.layer3 = _stage(
            sizes[1] * EXPANSION, sizes[2], _dilations(third, middle), stride=config.stride // 8
        )
        self.layer4 = _stage(sizes[2] * EXPANSION, sizes[3], dilations, stride=1)

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, H, W) to the features of the first, third and last stage."""
        low = self.run(self.stem, x)
        for block in self.layer1:
            low = self.run(block, low)
        middle = low
        for block in (*self.layer2, *self.layer3):
            middle = self.run(block, middle)
        high = middle
        for block in self.layer4:
            high = self.run(block, high)
        return low, middle, high

    def stem(self, x: Tensor) -> Tensor:
        """Images to maps at stride 4."""
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))  # type: ignore[no-any-return]


def _deep_stem(width: int) -> nn.Module:
    """Three 3x3 convolutions; names conv1.{0,1,3,4,6} as in timm's resnet50s."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False),
        RankOrderedBatchNorm(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, 1, 1, bias=False),
        RankOrderedBatchNorm(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 2 * width, 3, 1, 1, bias=False),
    )


def _plain_stem(width: int) -> nn.Module:
    return nn.Conv2d(3, width, 7, 2, 3, bias=False)


def _dilations(blocks: int, first_and_others: tuple[int, int]) -> tuple[int, ...]:
    """One for each block of a stage."""
    first, others = first_and_others
    return (first, *[others] * (blocks - 1))


def _stage(channels: int, width: int, dilations: tuple[int, ...], *, stride: int) -> nn.Sequential:
    """Bottlenecks of one resolution, one for each dilation."""
    first, *others = dilations
    return nn.Sequential(
        Bottleneck(channels, width, stride=stride, dilation=first),
        *(Bottleneck(width * EXPANSION, width, stride=1, dilation=other) for other in others),
    )
