"""EfficientNet-Lite0 at output stride 16, key names as in its PyTorch weights.

EfficientNet-B0 (Tan & Le 2019, arXiv 1905.11946, Table 1) without squeeze-and-excitation and with
ReLU6 instead of swish. The stochastic depth of its training on ImageNet is left out.
"""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from trainer.config.schema import ModelConfig
from trainer.network.backbone import Backbone
from trainer.network.batch_norm import RankOrderedBatchNorm

EPSILON = 1e-3  # of batch norm, as in TensorFlow
STEM = 32  # channels


class _Stage(NamedTuple):
    """Blocks of one kind.

    Attributes:
        expansion: of the channels inside a block.
        kernel: side of the depthwise convolution.
        stride: of the first block.
        dilation: of the others; the first block has that of the stage before.
    """

    blocks: int
    channels: int
    expansion: int
    kernel: int
    stride: int = 1
    dilation: int = 1


_STAGES = (
    _Stage(1, 16, 1, 3),
    _Stage(2, 24, 6, 3, stride=2),
    _Stage(2, 40, 6, 5, stride=2),
    _Stage(3, 80, 6, 3, stride=2),
    _Stage(3, 112, 6, 5),
    # Stride 2 in the paper. Dilated, all that follows sees the same pixels at twice the resolution.
    _Stage(4, 192, 6, 5, dilation=2),
    _Stage(1, 320, 6, 3, dilation=2),
)
LOW, MIDDLE = 3, 11  # blocks down to stride 4, and down to stride 16


class StridedConv2d(nn.Conv2d):
    """A convolution of stride 2 with the padding "SAME" of TensorFlow.

    Of an even size the last pixel is padded more than the first; `nn.Conv2d` pads both equally.
    """

    def __init__(self, channels: int, out: int, kernel: int, *, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, out, h / 2, w / 2), rounded up."""
        height, width = (self.kernel_size[0] - 2 + size % 2 for size in x.shape[-2:])
        sides = (width // 2, width - width // 2, height // 2, height - height // 2)
        return super().forward(functional.pad(x, sides))


class InvertedBottleneck(nn.Module):
    """1x1 that widens, depthwise, 1x1 that narrows and has no activation (Sandler et al. 2018)."""

    def __init__(self, channels: int, stage: _Stage, *, stride: int, dilation: int) -> None:
        super().__init__()
        inner = channels * stage.expansion
        self.widens = stage.expansion != 1
        if self.widens:
            self._expand_conv = nn.Conv2d(channels, inner, 1, bias=False)
            self._bn0 = RankOrderedBatchNorm(inner, EPSILON)
        self._depthwise_conv = _depthwise(inner, stage.kernel, stride=stride, dilation=dilation)
        self._bn1 = RankOrderedBatchNorm(inner, EPSILON)
        self._project_conv = nn.Conv2d(inner, stage.channels, 1, bias=False)
        self._bn2 = RankOrderedBatchNorm(stage.channels, EPSILON)
        self._relu = nn.ReLU6(inplace=True)
        self.has_shortcut = stride == 1 and channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, stage.channels, h / stride, w / stride)."""
        y = self._relu(self._bn0(self._expand_conv(x))) if self.widens else x
        y = self._relu(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        if self.has_shortcut:
            y += x
        return y  # type: ignore[no-any-return]


def _depthwise(channels: int, kernel: int, *, stride: int, dilation: int) -> nn.Conv2d:
    if stride == 2:
        return StridedConv2d(channels, channels, kernel, groups=channels)
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels, channels, kernel, 1, padding, dilation, groups=channels, bias=False)


class EfficientNetLite0(Backbone):
    """Backbone of DeepLabV3+ for machines without a card; one network of fixed size.

    Output stride 16 always: the sixth stage keeps its resolution, and the blocks after its first
    one have dilation 2, as the last stage of `trainer.network.resnet.ResNet`.
    """

    low_channels = _STAGES[1].channels
    middle_channels = _STAGES[4].channels
    high_channels = _STAGES[6].channels
    # Of TensorFlow's efficientnet_lite_builder: (p - 127) / 128 for pixels p from 0 to 255.
    pixel_mean = (127 / 255,) * 3
    pixel_std = (128 / 255,) * 3
    not_used = ("_conv_head.", "_bn1.", "_fc.")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._conv_stem = StridedConv2d(3, STEM, 3)
        self._bn0 = RankOrderedBatchNorm(STEM, EPSILON)
        self._relu = nn.ReLU6(inplace=True)
        self._blocks = nn.ModuleList(_blocks())

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, H, W) to the features of the second, fifth and last stage."""
        low = self.run(self.stem, x)
        for block in self._blocks[:LOW]:
            low = self.run(block, low)
        middle = low
        for block in self._blocks[LOW:MIDDLE]:
            middle = self.run(block, middle)
        high = middle
        for block in self._blocks[MIDDLE:]:
            high = self.run(block, high)
        return low, middle, high

    def stem(self, x: Tensor) -> Tensor:
        """Images to maps at stride 2."""
        return self._relu(self._bn0(self._conv_stem(x)))  # type: ignore[no-any-return]


def _blocks() -> Iterator[InvertedBottleneck]:
    """The blocks of all stages."""
    channels, dilation = STEM, 1
    for stage in _STAGES:
        stride = stage.stride
        for _ in range(stage.blocks):
            yield InvertedBottleneck(channels, stage, stride=stride, dilation=dilation)
            channels, stride, dilation = stage.channels, 1, stage.dilation
